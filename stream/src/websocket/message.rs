//! What Kubernetes' channels write into messages.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};

/// The channel's number that means: the next byte's channel is half-closed.
const CLOSE: u8 = 255;

/// How channels' data is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encoding {
    /// Binary messages: the channel's number, then the data.
    Binary,
    /// Text messages: the channel's number as a digit, then the data in base64.
    Base64,
}

/// Whether a client can half-close channels: since version 5 of remotecommand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CloseSignal {
    Known,
    Unknown,
}

/// What a message says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Said {
    Data(u8, Bytes),
    Close(u8),
    Nothing,
}

/// Why a message says nothing that can be understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum MessageError {
    #[error("a message is not a digit and base64")]
    Base64,
    #[error("a message that closes a channel does not name it")]
    Close,
}

impl Encoding {
    pub(super) fn encode(self, channel: u8, data: &[u8]) -> Message {
        match self {
            Self::Binary => {
                let mut message = BytesMut::with_capacity(1 + data.len());
                message.put_u8(channel);
                message.put_slice(data);
                Message::Binary(message.freeze())
            }
            Self::Base64 => {
                let mut message = String::with_capacity(1 + data.len().div_ceil(3) * 4);
                message.push(char::from(b'0'.wrapping_add(channel)));
                STANDARD.encode_string(data, &mut message);
                Message::Text(Utf8Bytes::from(message))
            }
        }
    }

    pub(super) fn decode(
        self,
        close: CloseSignal,
        mut message: Bytes,
    ) -> Result<Said, MessageError> {
        let Ok(first) = message.try_get_u8() else {
            return Ok(Said::Nothing);
        };
        if close == CloseSignal::Known && first == CLOSE {
            return match message[..] {
                [channel] => Ok(Said::Close(channel)),
                _ => Err(MessageError::Close),
            };
        }
        match self {
            Self::Binary => Ok(Said::Data(first, message)),
            Self::Base64 => {
                let data = STANDARD
                    .decode(&message)
                    .map_err(|_| MessageError::Base64)?;
                Ok(Said::Data(first.wrapping_sub(b'0'), data.into()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn messages_are_those_of_kubernetes() {
        // The examples of k8s.io/streaming's documentation of wsstream.
        let binary = Encoding::Binary.encode(1, b"\n");
        assert_eq!(binary, Message::Binary(Bytes::from_static(&[1, 10])));
        assert_eq!(
            Encoding::Base64.encode(1, b"\n"),
            Message::Text("1Cg==".into())
        );
        let said = Encoding::Base64.decode(CloseSignal::Unknown, Bytes::from_static(b"0Zm9vCg=="));
        assert_eq!(said, Ok(Said::Data(0, Bytes::from_static(b"foo\n"))));
    }

    #[test]
    fn channels_are_closed_since_version_5() {
        let decode = |close, message: &'static [u8]| Encoding::Binary.decode(close, message.into());
        assert_eq!(decode(CloseSignal::Known, &[255, 0]), Ok(Said::Close(0)));
        assert_eq!(decode(CloseSignal::Known, &[255]), Err(MessageError::Close));
        assert_eq!(
            decode(CloseSignal::Known, &[255, 0, 0]),
            Err(MessageError::Close)
        );
        let data = Said::Data(255, Bytes::from_static(&[0]));
        assert_eq!(decode(CloseSignal::Unknown, &[255, 0]), Ok(data));
        assert_eq!(decode(CloseSignal::Known, &[]), Ok(Said::Nothing));
    }

    proptest! {
        #[test]
        fn what_is_said_is_heard(channel in 0u8..40, data in prop::collection::vec(any::<u8>(), 0..200)) {
            for encoding in [Encoding::Binary, Encoding::Base64] {
                let message = encoding.encode(channel, &data).into_data();
                let said = encoding.decode(CloseSignal::Known, message);
                prop_assert_eq!(said, Ok(Said::Data(channel, data.clone().into())));
            }
        }

        #[test]
        fn any_bytes_are_a_message_or_an_error(data in prop::collection::vec(any::<u8>(), 0..50)) {
            for encoding in [Encoding::Binary, Encoding::Base64] {
                let _ = encoding.decode(CloseSignal::Known, data.clone().into());
            }
        }
    }
}
