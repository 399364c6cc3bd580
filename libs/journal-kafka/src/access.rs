//! How the cluster lets clients in: encryption, whose certificates are believed, and who this is.
//!
//! Names and meanings are librdkafka's (CONFIGURATION.md of 2.12.1: `security.protocol`, `ssl.*`, `sasl.*`; 2026-11). PLAIN and
//! SCRAM are in the library itself; GSSAPI and OAUTHBEARER are not offered.

use rdkafka::config::ClientConfig;
use serde::Deserialize;
use tracklayer_ids::Secret;

/// What a certificate in PEM begins with.
const PEM_CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----";
/// What a key in PEM has in its first line, whichever kind of key it is.
const PEM_KEY: &str = "PRIVATE KEY-----";

/// How connections to the brokers are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SecurityProtocol {
    /// Neither encrypted nor authenticated.
    #[default]
    Plaintext,
    /// TLS; who this is may be said by a certificate.
    Ssl,
    /// User name and password, not encrypted.
    SaslPlaintext,
    /// User name and password inside of TLS.
    SaslSsl,
}

impl SecurityProtocol {
    /// Its name in settings.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Plaintext => "plaintext",
            Self::Ssl => "ssl",
            Self::SaslPlaintext => "sasl_plaintext",
            Self::SaslSsl => "sasl_ssl",
        }
    }

    const fn is_encrypted(self) -> bool {
        match self {
            Self::Ssl | Self::SaslSsl => true,
            Self::Plaintext | Self::SaslPlaintext => false,
        }
    }

    const fn asks_for_a_password(self) -> bool {
        match self {
            Self::SaslPlaintext | Self::SaslSsl => true,
            Self::Plaintext | Self::Ssl => false,
        }
    }
}

/// How user name and password are shown to a broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
pub enum SaslMechanism {
    /// As they are.
    #[serde(rename = "PLAIN")]
    Plain,
    /// A proof that the password is known, by SHA-256.
    #[serde(rename = "SCRAM-SHA-256")]
    ScramSha256,
    /// A proof that the password is known, by SHA-512.
    #[default]
    #[serde(rename = "SCRAM-SHA-512")]
    ScramSha512,
}

impl SaslMechanism {
    /// Its name in settings.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha512 => "SCRAM-SHA-512",
        }
    }
}

/// How this installation comes into the cluster. Texts are empty where they are not needed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Access {
    /// How connections are made.
    pub protocol: SecurityProtocol,
    /// Certificates of the authorities by which the brokers' are judged, PEM. Empty: those that the system trusts.
    pub ca: String,
    /// This client's certificate and what stands between it and its authority, PEM, for brokers that ask for one.
    pub certificate: String,
    /// The certificate's key, PEM, without a passphrase.
    pub certificate_key: Secret<String>,
    /// How user name and password are shown.
    pub mechanism: SaslMechanism,
    /// The user's name.
    pub user: String,
    /// The user's password.
    pub password: Secret<String>,
}

impl Access {
    /// Gives them to a client.
    pub(crate) fn apply(&self, config: &mut ClientConfig) {
        config.set("security.protocol", self.protocol.as_str());
        if self.protocol.is_encrypted() {
            if self.ca.is_empty() {
                // The first of the usual places that is there: OpenSSL's own place is not where every system keeps them.
                config.set("ssl.ca.location", "probe");
            } else {
                config.set("ssl.ca.pem", &self.ca);
            }
            if !self.certificate.is_empty() {
                config.set("ssl.certificate.pem", &self.certificate);
                config.set("ssl.key.pem", self.certificate_key.expose());
            }
        }
        if self.protocol.asks_for_a_password() {
            config.set("sasl.mechanism", self.mechanism.as_str());
            config.set("sasl.username", &self.user);
            config.set("sasl.password", self.password.expose());
        }
    }

    /// Whether whoever listens on the way learns the password.
    pub(crate) fn shows_its_password(&self) -> bool {
        self.protocol == SecurityProtocol::SaslPlaintext && self.mechanism == SaslMechanism::Plain
    }

    /// What is wrong, each with what is allowed.
    pub(crate) fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let protocol = self.protocol.as_str();
        let has = |text: &str| !text.is_empty();
        let has_key = has(self.certificate_key.expose());
        let has_password = has(self.password.expose());
        if self.protocol.asks_for_a_password() {
            for (key, given) in [("kafka_user", has(&self.user)), ("kafka_password", has_password)] {
                if !given {
                    problems
                        .push(format!("{key} is not set, and kafka_security_protocol {protocol} needs it"));
                }
            }
        } else if has(&self.user) || has_password {
            problems.push(format!(
                "kafka_security_protocol is {protocol}, which shows neither kafka_user nor kafka_password to a broker: \
                 sasl_ssl does (sasl_plaintext without TLS), or take both away"
            ));
        }
        let about_tls = has(&self.ca) || has(&self.certificate) || has_key;
        if about_tls && !self.protocol.is_encrypted() {
            problems.push(format!(
                "kafka_security_protocol is {protocol}, which uses no certificates: ssl and sasl_ssl do, or take kafka_ca, \
                 kafka_certificate and kafka_certificate_key away"
            ));
        }
        if has(&self.certificate) != has_key {
            problems.push("kafka_certificate and kafka_certificate_key are of use together only".to_owned());
        }
        if self.certificate_key.expose().contains("ENCRYPTED") {
            problems.push("kafka_certificate_key has a passphrase, allowed is a key without one".to_owned());
        }
        for (key, text, begins) in [
            ("kafka_ca", &self.ca, PEM_CERTIFICATE),
            ("kafka_certificate", &self.certificate, PEM_CERTIFICATE),
            ("kafka_certificate_key", self.certificate_key.expose(), PEM_KEY),
        ] {
            if has(text) && !text.contains(begins) {
                problems.push(format!(
                    "{key} is not PEM, allowed is text with a line -----BEGIN …-----; the path of a file is {key}_file"
                ));
            }
        }
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----\nMII\n-----END CERTIFICATE-----";
    const KEY: &str = "-----BEGIN PRIVATE KEY-----\nMII\n-----END PRIVATE KEY-----";

    fn with_everything(protocol: SecurityProtocol) -> Access {
        Access {
            protocol,
            ca: CERTIFICATE.to_owned(),
            certificate: CERTIFICATE.to_owned(),
            certificate_key: KEY.to_owned().into(),
            mechanism: SaslMechanism::ScramSha256,
            user: "tracklayer".to_owned(),
            password: "right".to_owned().into(),
        }
    }

    #[test]
    fn what_does_not_fit_together_is_named() {
        assert_eq!(Access::default().problems(), Vec::<String>::new());
        assert_eq!(with_everything(SecurityProtocol::SaslSsl).problems(), Vec::<String>::new());
        let named = |access: Access, word: &str| {
            let problems = access.problems();
            assert_eq!(problems.len(), 1, "{problems:?}");
            assert!(problems[0].contains(word), "{problems:?}");
        };
        let everything = || with_everything(SecurityProtocol::SaslSsl);
        named(with_everything(SecurityProtocol::Ssl), "kafka_password");
        named(with_everything(SecurityProtocol::SaslPlaintext), "kafka_ca");
        named(Access { user: String::new(), ..everything() }, "kafka_user is not set");
        named(Access { password: String::new().into(), ..everything() }, "kafka_password is not set");
        named(Access { certificate_key: String::new().into(), ..everything() }, "together only");
        let sealed = KEY.replace("PRIVATE", "ENCRYPTED PRIVATE");
        named(Access { certificate_key: sealed.into(), ..everything() }, "passphrase");
        named(Access { ca: "/etc/ca.pem".to_owned(), ..everything() }, "kafka_ca_file");
        assert_eq!(with_everything(SecurityProtocol::Plaintext).problems().len(), 2);
    }

    #[test]
    fn a_client_is_given_what_its_protocol_uses_and_nothing_else() {
        let given = |access: Access| {
            let mut config = ClientConfig::new();
            access.apply(&mut config);
            let keys: Vec<&str> = config.config_map().into_keys().collect();
            keys.join(" ")
        };
        let sasl = "sasl.mechanism sasl.password sasl.username security.protocol";
        let tls = "ssl.ca.pem ssl.certificate.pem ssl.key.pem";
        assert_eq!(given(with_everything(SecurityProtocol::Plaintext)), "security.protocol");
        assert_eq!(given(with_everything(SecurityProtocol::SaslPlaintext)), sasl);
        assert_eq!(given(with_everything(SecurityProtocol::Ssl)), format!("security.protocol {tls}"));
        assert_eq!(given(with_everything(SecurityProtocol::SaslSsl)), format!("{sasl} {tls}"));
        let system = Access { protocol: SecurityProtocol::Ssl, ..Access::default() };
        assert_eq!(given(system), "security.protocol ssl.ca.location");
    }

    #[test]
    fn neither_password_nor_key_is_printed() {
        let printed = format!("{:?}", with_everything(SecurityProtocol::SaslSsl));
        assert!(!printed.contains("right") && !printed.contains("PRIVATE"), "{printed}");
    }
}
