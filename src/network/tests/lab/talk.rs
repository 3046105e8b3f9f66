//! Servers in namespaces, and clients of theirs. A server answers with the address that it sees its client at.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    thread,
    time::Duration,
};

use super::Netns;

const PATIENCE: Duration = Duration::from_secs(2);

/// Serves TCP until the process ends (a few connections at most; the thread then just waits).
pub fn serve_tcp(netns: &Netns, at: &str) {
    let at = at.to_owned();
    let listener = netns.run(move || TcpListener::bind(at).unwrap());
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let peer = stream.peer_addr().unwrap();
            let _ = stream.write_all(peer.to_string().as_bytes());
        }
    });
}

/// Serves UDP likewise.
pub fn serve_udp(netns: &Netns, at: &str) {
    let at = at.to_owned();
    let socket = netns.run(move || UdpSocket::bind(at).unwrap());
    thread::spawn(move || {
        let mut buffer = [0; 100];
        while let Ok((_, peer)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(peer.to_string().as_bytes(), peer);
        }
    });
}

/// The answer of a TCP server, or the error.
pub fn ask_tcp(to: &str) -> Result<SocketAddr, String> {
    let ask = || {
        let mut stream = TcpStream::connect_timeout(&to.parse().unwrap(), PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    let answer: std::io::Result<String> = ask();
    answer.map_err(|e| format!("{to}: {e}")).map(|a| a.parse().unwrap())
}

/// A UDP client that keeps its port.
#[derive(Debug)]
pub struct UdpClient(UdpSocket);

impl UdpClient {
    pub fn new(from: &str) -> Self {
        let socket = UdpSocket::bind(from).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(socket)
    }

    pub fn ask(&self, to: &str) -> Result<SocketAddr, String> {
        let mut buffer = [0; 100];
        self.0.send_to(b"?", to).map_err(|e| format!("{to}: {e}"))?;
        let (len, _) = self.0.recv_from(&mut buffer).map_err(|e| format!("{to}: {e}"))?;
        Ok(std::str::from_utf8(&buffer[..len]).unwrap().parse().unwrap())
    }
}
