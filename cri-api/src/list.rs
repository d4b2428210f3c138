//! Answers that list what a node has: of the same bytes on the wire as the generated ones would be, but put together from messages
//! that were encoded before. A list of a thousand containers is asked for each second, and all of it is as it was but their states.

use prost::bytes::{Buf, BufMut, Bytes};
use prost::encoding::{
    DecodeContext, WireType, encode_key, encode_varint, encoded_len_varint, key_len, message,
    skip_field,
};
use prost::{DecodeError, Message};

use crate::v1::{Container, ContainerState, PodSandbox, PodSandboxState};

/// The field of both lists.
const ITEMS: u32 = 1;
/// The key and the value of a field with a small number.
const SHORT_FIELD: usize = 2;

/// A message that was encoded before, without its state.
#[derive(Clone, Debug, PartialEq)]
pub struct Listed {
    without_state: Bytes,
    /// The state's field, of which the default is absent; fields may come in any order.
    state: Option<[u8; SHORT_FIELD]>,
}

impl Listed {
    /// A container, by its encoding with the default state.
    pub fn container(without_state: Bytes, state: ContainerState) -> Self {
        const STATE: u8 = 6;
        Self::new(without_state, STATE, state as u8)
    }

    /// A sandbox, by its encoding with the default state.
    pub fn sandbox(without_state: Bytes, state: PodSandboxState) -> Self {
        const STATE: u8 = 3;
        Self::new(without_state, STATE, state as u8)
    }

    fn new(without_state: Bytes, field: u8, state: u8) -> Self {
        // Wire type 0 is a number.
        let state = (state != 0).then_some([field << 3, state]);
        Self {
            without_state,
            state,
        }
    }

    fn length(&self) -> usize {
        self.without_state.len() + self.state.map_or(0, |field| field.len())
    }

    fn encode(&self, buffer: &mut impl BufMut) {
        encode_key(ITEMS, WireType::LengthDelimited, buffer);
        encode_varint(self.length() as u64, buffer);
        buffer.put_slice(&self.without_state);
        if let Some(state) = self.state {
            buffer.put_slice(&state);
        }
    }

    fn encoded_len(&self) -> usize {
        let length = self.length();
        key_len(ITEMS) + encoded_len_varint(length as u64) + length
    }
}

macro_rules! lists {
    ($($(#[$doc:meta])* $name:ident { $items:ident: $item:ty })*) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq)]
        pub struct $name {
            /// As messages: what is received.
            pub $items: Vec<$item>,
            /// After these, those that were encoded before.
            pub listed: Vec<Listed>,
        }

        impl Message for $name {
            fn encode_raw(&self, buffer: &mut impl BufMut) {
                message::encode_repeated(ITEMS, &self.$items, buffer);
                self.listed.iter().for_each(|listed| listed.encode(buffer));
            }

            fn merge_field(
                &mut self,
                tag: u32,
                wire_type: WireType,
                buffer: &mut impl Buf,
                context: DecodeContext,
            ) -> Result<(), DecodeError> {
                match tag {
                    ITEMS => message::merge_repeated(wire_type, &mut self.$items, buffer, context),
                    _ => skip_field(wire_type, tag, buffer, context),
                }
            }

            fn encoded_len(&self) -> usize {
                let listed: usize = self.listed.iter().map(Listed::encoded_len).sum();
                message::encoded_len_repeated(ITEMS, &self.$items) + listed
            }

            fn clear(&mut self) {
                *self = Self::default();
            }
        }
    )*};
}

lists! {
    /// The containers that were asked for.
    ListContainersResponse { containers: Container }
    /// The pods that were asked for.
    ListPodSandboxResponse { items: PodSandbox }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// In each state, with texts that need one byte for their length and more.
    fn containers() -> Vec<Container> {
        let states = (0..4).map(|state| ContainerState::try_from(state).unwrap());
        let container = |state: ContainerState| Container {
            id: "i".repeat(64),
            image_ref: "r".repeat(200 * state as usize),
            state: state.into(),
            created_at: i64::MAX,
            labels: [("a".to_owned(), "b".repeat(300))].into(),
            ..Container::default()
        };
        states.map(container).collect()
    }

    fn sandboxes() -> Vec<PodSandbox> {
        let states = [
            PodSandboxState::SandboxReady,
            PodSandboxState::SandboxNotready,
        ];
        let sandbox = |state: PodSandboxState| PodSandbox {
            id: "i".repeat(64),
            state: state.into(),
            runtime_handler: "h".to_owned(),
            ..PodSandbox::default()
        };
        states.map(sandbox).into()
    }

    #[test]
    fn containers_that_were_encoded_before_are_the_same() {
        let containers = containers();
        let listed = containers.iter().map(|container| {
            let without_state = Container {
                state: 0,
                ..container.clone()
            };
            Listed::container(without_state.encode_to_vec().into(), container.state())
        });
        let list = ListContainersResponse {
            containers: containers.clone(),
            listed: listed.collect(),
        };
        let bytes = list.encode_to_vec();
        assert_eq!(bytes.len(), list.encoded_len());
        let received = ListContainersResponse::decode(&bytes[..]).unwrap();
        assert_eq!(received.containers, [&containers[..], &containers].concat());
    }

    #[test]
    fn sandboxes_that_were_encoded_before_are_the_same() {
        let sandboxes = sandboxes();
        let listed = sandboxes.iter().map(|sandbox| {
            let without_state = PodSandbox {
                state: 0,
                ..sandbox.clone()
            };
            Listed::sandbox(without_state.encode_to_vec().into(), sandbox.state())
        });
        let list = ListPodSandboxResponse {
            items: Vec::new(),
            listed: listed.collect(),
        };
        let bytes = list.encode_to_vec();
        assert_eq!(bytes.len(), list.encoded_len());
        let received = ListPodSandboxResponse::decode(&bytes[..]).unwrap();
        assert_eq!(received.items, sandboxes);
    }

    #[test]
    fn unknown_fields_are_passed_over() {
        let received = ListContainersResponse::decode(&[0x50, 7][..]).unwrap();
        assert_eq!(received, ListContainersResponse::default());
    }
}
