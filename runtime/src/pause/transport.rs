//! Messages over a pod's socket: encoding, decoding, waiting for room and for packets.

use std::cell::RefCell;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use podwright_pause::protocol::{Answer, MAX_PACKET, Message, Request};
use podwright_pause::wire::{DecodeError, Wire};
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
    descriptors: &[BorrowedFd<'_>],
) -> Result<(), PauseError> {
    let packet = message.to_bytes();
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

/// A decoded packet: none when the peer has closed.
type Received = Option<(Result<Message<Answer>, DecodeError>, Vec<OwnedFd>)>;

fn receive_now(socket: &OwnedFd) -> io::Result<Received> {
    PACKET.with_borrow_mut(|buffer| {
        let packet = socket::receive(socket, buffer)?;
        Ok(packet.map(|packet| {
            (
                Message::from_bytes(&buffer[..packet.length]),
                packet.descriptors,
            )
        }))
    })
}

pub(super) async fn receive(
    socket: &AsyncFd<OwnedFd>,
) -> Result<Option<(Message<Answer>, Vec<OwnedFd>)>, PauseError> {
    let error = |source: io::Error| PauseError::Socket {
        action: "read from",
        source,
    };
    let received = loop {
        let mut ready = socket.readable().await.map_err(error)?;
        match ready.try_io(|fd| receive_now(fd.get_ref())) {
            Ok(Err(source)) if source.kind() == io::ErrorKind::ConnectionReset => break None,
            Ok(received) => break received.map_err(error)?,
            Err(_would_block) => {}
        }
    };
    let Some((message, descriptors)) = received else {
        return Ok(None);
    };
    Ok(Some((message.map_err(PauseError::Decode)?, descriptors)))
}
