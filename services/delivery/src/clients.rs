//! The services that delivery asks.

use tracklayer_proto::consent::v1::consent_service_client::ConsentServiceClient;
use tracklayer_proto::identity::v1::identity_service_client::IdentityServiceClient;
use tracklayer_rpc::Channel;

/// Answers hold up to 2,500 events with their profiles' keys.
const MAX_ANSWER_BYTES: usize = 64 * 1024 * 1024;

/// Clients of identity and consent. Cheap to clone.
#[derive(Clone)]
pub struct Clients {
    /// Who a person is.
    pub identity: IdentityServiceClient<Channel>,
    /// Whether it may be sent.
    pub consent: ConsentServiceClient<Channel>,
}

impl Clients {
    /// Over lazy channels.
    #[must_use]
    pub fn new(identity: Channel, consent: Channel) -> Self {
        Self {
            identity: IdentityServiceClient::new(identity).max_decoding_message_size(MAX_ANSWER_BYTES),
            consent: ConsentServiceClient::new(consent).max_decoding_message_size(MAX_ANSWER_BYTES),
        }
    }
}
