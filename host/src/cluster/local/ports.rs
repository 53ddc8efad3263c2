//! The port at which the nodes of a job meet.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use tokio::net::TcpSocket;

/// A free port of this machine that the kernel gives to nobody else while this lives. The operator's
/// 23456 is the pod's own there, but all jobs share this machine.
#[derive(Debug)]
pub struct HeldPort {
    number: u16,
    /// Bound and never listening, so that the replica itself can listen.
    _socket: TcpSocket,
}

impl HeldPort {
    /// Holds a port.
    ///
    /// # Errors
    ///
    /// When no port is free.
    pub fn choose() -> io::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
        // The replica sets the same option, and then both may have the port. Set before, it would
        // let the kernel choose a port that another job holds.
        socket.set_reuseaddr(true)?;
        let number = socket.local_addr()?.port();
        Ok(Self {
            number,
            _socket: socket,
        })
    }

    pub fn number(&self) -> u16 {
        self.number
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[tokio::test]
    async fn a_held_port_is_for_the_replica_alone() {
        let port = HeldPort::choose().unwrap();
        // A socket without the option, as most servers of a shell or a test bind.
        let other = TcpSocket::new_v4().unwrap();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port.number()));
        assert!(other.bind(address).is_err());
        for everywhere in ["0.0.0.0", "[::]"] {
            // The standard library sets the option, as torchrun's store does.
            let replica = TcpListener::bind(format!("{everywhere}:{}", port.number())).unwrap();
            TcpStream::connect(address).unwrap();
            drop(replica);
        }
    }

    #[tokio::test]
    async fn the_kernel_gives_a_held_port_to_nobody() {
        let held: Vec<HeldPort> = (0..200).map(|_| HeldPort::choose().unwrap()).collect();
        let numbers: std::collections::BTreeSet<u16> = held.iter().map(HeldPort::number).collect();
        assert_eq!(numbers.len(), held.len());
        for _ in 0..200 {
            let other = TcpListener::bind("127.0.0.1:0").unwrap();
            assert!(!numbers.contains(&other.local_addr().unwrap().port()));
        }
    }
}
