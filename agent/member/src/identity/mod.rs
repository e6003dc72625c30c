//! Who is who: the certificate authority, certificates, join tokens, and how a peer's certificate is judged.

mod ca;
mod certificate;
mod credentials;
mod files;
mod key;
mod name;
mod roster;
mod time;
mod token;
mod token_book;
mod verify;

pub use ca::{Ca, CaError, LEAF_VALIDITY, request_key, signing_time};
pub use certificate::{CaCertificate, CaFingerprint, CertFault, PeerCert, Serial};
pub use credentials::{Identity, IdentityError};
pub use files::{FileError, read_guarded, read_private, replace_private};
pub use key::{KeyError, Keypair};
pub use name::{ClusterName, MemberName, NameError, PeerId, Role, Subject};
pub use roster::Roster;
pub use time::{EARLIEST_PLAUSIBLE, SystemClock, TimeFloor, TrustedTime, WallClock, trusted_seconds};
pub use token::{Token, TokenParseError, TokenSecret};
pub use token_book::{DEFAULT_TOKEN_TTL, Redeemed, TokenBook, TokenBookError, TokenRefusal, TokenView};
pub(crate) use verify::{ClientSideVerifier, Expected, Judge, PinnedCaVerifier, ServerSideVerifier};
