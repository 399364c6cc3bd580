//! The HTTP clients for addresses that a workspace chooses: a receiver's, a platform's `base_url`, a bucket's `endpoint`. Such an address
//! may lead into the operator's own network, which is refused unless the operator allows it: as it stands, and again when a name is
//! resolved, at the moment of connecting, so that a name which changes its address between the check and the request gains nothing.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::{Client, Url};
use tracklayer_destination::is_private;

/// The clients could not be made.
#[derive(Debug, thiserror::Error)]
#[error("could not set the HTTP client up")]
pub struct ClientError(#[from] reqwest::Error);

/// A client for any address, and one for public ones; each keeps its connections. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Clients {
    any: Client,
    public: Client,
}

/// A private address, which an operator would have to allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Private;

impl Clients {
    /// Sets them up.
    ///
    /// # Errors
    /// The TLS set-up is not usable.
    pub fn new() -> Result<Self, ClientError> {
        let base = || {
            Client::builder()
                .connect_timeout(Duration::from_secs(5))
                .pool_idle_timeout(Duration::from_secs(60))
                .tcp_nodelay(true)
                .redirect(reqwest::redirect::Policy::none())
                .user_agent(concat!("TrackLayer/", env!("CARGO_PKG_VERSION")))
        };
        Ok(Self { any: base().build()?, public: base().dns_resolver(Arc::new(PublicOnly)).build()? })
    }

    /// The client for an address; none: the client's own, which is public. `allow_private` is an operator's word, never a workspace's.
    ///
    /// # Errors
    /// It is a private one.
    pub fn to(&self, address: Option<&Url>, allow_private: bool) -> Result<&Client, Private> {
        if allow_private {
            return Ok(&self.any);
        }
        let literal = address.and_then(|url| url.host_str()?.trim_matches(['[', ']']).parse::<IpAddr>().ok());
        if literal.is_some_and(|ip| is_private(&ip.to_string())) { Err(Private) } else { Ok(&self.public) }
    }
}

/// Refuses names that lead to private addresses.
#[derive(Debug)]
struct PublicOnly;

impl Resolve for PublicOnly {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let found: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            if found.iter().any(|address| is_private(&address.ip().to_string())) {
                return Err("the name leads to a private address, which an operator has to allow".into());
            }
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn private_addresses_are_refused_by_number_and_by_name_unless_they_are_allowed() {
        let clients = Clients::new().unwrap();
        for private in
            ["http://127.0.0.1:9000", "http://[::1]:9000/x", "http://169.254.169.254", "http://10.1.2.3"]
        {
            let url = Url::parse(private).unwrap();
            assert_eq!(clients.to(Some(&url), false).err(), Some(Private), "{private}");
            assert!(clients.to(Some(&url), true).is_ok(), "{private}");
        }
        for public in ["http://203.0.114.7/x", "https://shop.example.com"] {
            assert!(clients.to(Some(&Url::parse(public).unwrap()), false).is_ok(), "{public}");
        }
        // A name is looked at when it is resolved.
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = Url::parse(&format!("http://localhost:{}", listener.local_addr().unwrap().port())).unwrap();
        let error = clients.to(Some(&url), false).unwrap().get(url).send().await.unwrap_err();
        let told = format!("{error:?}");
        assert!(error.is_connect() && told.contains("private address"), "{told}");
    }
}
