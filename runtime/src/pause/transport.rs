//! Messages over a pod's socket: encoding, decoding, waiting for room and for packets.

use std::cell::RefCell;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use podwright_pause::protocol::{Answer, MAX_PACKET, Message, Request, RequestId};
use podwright_pause::version::Version;
use podwright_pause::wire::{DecodeError, Reader, Wire};
use tokio::io::unix::AsyncFd;

use super::error::PauseError;
use super::socket;

thread_local! {
    /// One buffer per worker thread serves every pod: nothing is kept in it between two packets.
    static PACKET: RefCell<Box<[u8; MAX_PACKET]>> = RefCell::new(Box::new([0; MAX_PACKET]));
}

pub(super) async fn send(
    socket: &AsyncFd<OwnedFd>,
    message: &Message<Request>,
    version: Version,
    descriptors: &[BorrowedFd<'_>],
) -> Result<(), PauseError> {
    let packet = message
        .to_bytes_of(version)
        .map_err(|newer| PauseError::older(newer, version))?;
    loop {
        let mut ready = socket
            .writable()
            .await
            .map_err(|source| PauseError::Socket {
                action: "write to",
                source,
            })?;
        match ready.try_io(|fd| socket::send(fd.get_ref(), &packet, descriptors)) {
            Ok(sent) => {
                return sent.map_err(|source| PauseError::Socket {
                    action: "write to",
                    source,
                });
            }
            Err(_would_block) => {}
        }
    }
}

/// A packet.
pub(super) enum Received {
    Message(Message<Answer>, Vec<OwnedFd>),
    /// It does not decode; the number that it begins with, if it is that long.
    Broken(RequestId, DecodeError),
}

/// None when the peer has closed.
fn receive_now(socket: &OwnedFd, version: Version) -> io::Result<Option<Received>> {
    PACKET.with_borrow_mut(|buffer| {
        let Some(packet) = socket::receive(socket, &mut buffer[..])? else {
            return Ok(None);
        };
        let bytes = &buffer[..packet.length];
        Ok(Some(match Message::from_bytes_of(bytes, version) {
            Ok(message) => Received::Message(message, packet.descriptors),
            Err(error) => {
                let number = RequestId::get(&mut Reader::new(bytes, version));
                Received::Broken(number.unwrap_or_default(), error)
            }
        }))
    })
}

pub(super) async fn receive(
    socket: &AsyncFd<OwnedFd>,
    version: Version,
) -> Result<Option<Received>, PauseError> {
    let error = |source: io::Error| PauseError::Socket {
        action: "read from",
        source,
    };
    loop {
        let mut ready = socket.readable().await.map_err(error)?;
        match ready.try_io(|fd| receive_now(fd.get_ref(), version)) {
            Ok(Err(source)) if source.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
            Ok(received) => return received.map_err(error),
            Err(_would_block) => {}
        }
    }
}
