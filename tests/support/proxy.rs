//! An HTTP proxy that passes connections on (CONNECT), or refuses to.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Passes on; with a value, only for that `Proxy-Authorization`.
    Pass(Option<String>),
    /// This status line.
    Refuse(&'static str),
    /// Hangs up without a word.
    HangUp,
}

pub struct ConnectProxy {
    port: u16,
    asked: Arc<Mutex<Vec<String>>>,
}

impl ConnectProxy {
    /// It listens as long as the process lives.
    pub fn start(answer: Answer) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port for the proxy");
        let port = listener.local_addr().expect("it is bound").port();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let heard = asked.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let (answer, heard) = (answer.clone(), heard.clone());
                std::thread::spawn(move || serve(client, &answer, &heard));
            }
        });
        Self { port, asked }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Request lines so far.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("not poisoned").clone()
    }
}

fn serve(mut client: TcpStream, answer: &Answer, asked: &Mutex<Vec<String>>) -> Option<()> {
    let mut reader = BufReader::new(client.try_clone().ok()?);
    let mut head = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        match line.trim_end() {
            "" => break,
            line => head.push(line.to_owned()),
        }
    }
    let request = head.first()?.clone();
    asked.lock().expect("not poisoned").push(request.clone());
    let login =
        head.iter().find_map(|line| line.split_once(": ").filter(|(name, _)| name.eq_ignore_ascii_case("proxy-authorization")));
    let status = match answer {
        Answer::HangUp => return None,
        Answer::Refuse(status) => Some(*status),
        Answer::Pass(Some(wanted)) if login.map(|(_, value)| value) != Some(wanted) => Some("407 Proxy Authentication Required"),
        Answer::Pass(_) => None,
    };
    if let Some(status) = status {
        return write!(client, "HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n").ok();
    }
    let server = TcpStream::connect(request.split(' ').nth(1)?).ok()?;
    client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").ok()?;
    let (mut from_server, mut to_client) = (server.try_clone().ok()?, client.try_clone().ok()?);
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut from_server, &mut to_client);
        let _ = to_client.shutdown(std::net::Shutdown::Both);
    });
    let mut server = server;
    // What the reader has read beyond the head belongs to the connection.
    let _ = std::io::copy(&mut reader, &mut server);
    server.shutdown(std::net::Shutdown::Both).ok()
}
