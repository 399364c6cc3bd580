//! Every metric of control, named and described once.

use metrics::{counter, describe_counter, describe_gauge, gauge};

const CONFIG_VERSION: &str = "tracklayer_control_config_version";
const CONFIG_FOLLOWERS: &str = "tracklayer_control_config_followers";
const SIGN_INS: &str = "tracklayer_control_sign_ins_total";
const DELIVERY_CALLS_FAILED: &str = "tracklayer_control_delivery_calls_failed_total";

/// How a sign-in at the console ended.
#[derive(Debug, Clone, Copy)]
pub enum SignIn {
    /// Signed in.
    Accepted,
    /// The key is not known.
    Refused,
}

/// Describes them.
pub fn describe() {
    describe_gauge!(CONFIG_VERSION, "Version of the configuration that this replica hands out");
    describe_gauge!(CONFIG_FOLLOWERS, "Open WatchConfig streams");
    describe_counter!(SIGN_INS, "Sign-ins at the console, by outcome");
    describe_counter!(DELIVERY_CALLS_FAILED, "Calls of the console to delivery that failed, by RPC");
}

/// A new configuration is handed out.
pub fn config_version(version: u64) {
    // Versions stay far below 2^52, where a float would begin to skip.
    #[allow(clippy::cast_precision_loss)]
    gauge!(CONFIG_VERSION).set(version as f64);
}

/// Counts a follower for as long as it lives.
#[derive(Debug)]
pub struct Follower(());

impl Follower {
    /// A stream opens.
    #[must_use]
    pub fn arrives() -> Self {
        gauge!(CONFIG_FOLLOWERS).increment(1.0);
        Self(())
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        gauge!(CONFIG_FOLLOWERS).decrement(1.0);
    }
}

/// Somebody tried to sign in.
pub fn sign_in(outcome: SignIn) {
    let outcome = match outcome {
        SignIn::Accepted => "accepted",
        SignIn::Refused => "refused",
    };
    counter!(SIGN_INS, "outcome" => outcome).increment(1);
}

/// Delivery did not answer the console.
pub fn delivery_call_failed(rpc: &'static str) {
    counter!(DELIVERY_CALLS_FAILED, "rpc" => rpc).increment(1);
}
