//! The server of ours behind a socket: HTTP/1.1 as far as it is needed, on a thread a connection, with or without TLS, and a token
//! server beside it. It hangs up instead of answering when it is told to.

// Each test file uses a part of it.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::server::{Question, Reply, Server};

/// What is said to a request before the server hears of it; `None`: the server answers.
pub type Before = Box<dyn FnMut(&Question) -> Option<Raw> + Send>;

pub enum Raw {
    Reply(Reply),
    /// Written as it is, and then the line is cut.
    Octets(Vec<u8>),
    /// A head, and a body without an end.
    Endless(Vec<u8>),
}

pub struct Endpoint {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    server: Mutex<Server>,
    before: Mutex<Option<Before>>,
    headers: Mutex<Vec<BTreeMap<String, String>>>,
    connections: Mutex<u64>,
    done: AtomicBool,
}

impl Endpoint {
    pub fn start(server: Server, tls: Option<Arc<ServerConfig>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let shared = Arc::new(Shared {
            server: Mutex::new(server),
            before: Mutex::default(),
            headers: Mutex::default(),
            connections: Mutex::default(),
            done: AtomicBool::new(false),
        });
        let of_thread = shared.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if of_thread.done.load(Ordering::SeqCst) {
                    return;
                }
                *of_thread.connections.lock().unwrap() += 1;
                let (shared, tls) = (of_thread.clone(), tls.clone());
                std::thread::spawn(move || match tls {
                    None => serve(stream, &shared),
                    Some(tls) => serve(StreamOwned::new(ServerConnection::new(tls).unwrap(), stream), &shared),
                });
            }
        });
        Self { address, shared }
    }

    pub fn url(&self, scheme: &str) -> String {
        format!("{scheme}://localhost:{}/fhir", self.address.port())
    }

    pub fn server(&self) -> MutexGuard<'_, Server> {
        self.shared.server.lock().unwrap()
    }

    pub fn before(&self, before: impl FnMut(&Question) -> Option<Raw> + Send + 'static) {
        *self.shared.before.lock().unwrap() = Some(Box::new(before));
    }

    /// Of all requests so far.
    pub fn headers(&self) -> Vec<BTreeMap<String, String>> {
        self.shared.headers.lock().unwrap().clone()
    }

    pub fn connections(&self) -> u64 {
        *self.shared.connections.lock().unwrap()
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.shared.done.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
    }
}

fn serve(stream: impl Read + Write, shared: &Shared) {
    let mut stream = BufReader::new(stream);
    while let Some(question) = read(&mut stream) {
        shared.headers.lock().unwrap().push(question.headers.clone());
        let raw = shared.before.lock().unwrap().as_mut().and_then(|before| before(&question));
        let reply = match raw {
            Some(Raw::Octets(octets)) => {
                let _ = stream.get_mut().write_all(&octets);
                return;
            }
            Some(Raw::Endless(head)) => {
                let _ = stream.get_mut().write_all(&head);
                while stream.get_mut().write_all(&[b'x'; 65_536]).is_ok() {}
                return;
            }
            Some(Raw::Reply(reply)) => Some(reply),
            None => {
                let path = question.path.trim_start_matches("/fhir").trim_start_matches('/').to_owned();
                shared.server.lock().unwrap().hear(&Question { path, ..question })
            }
        };
        // Told to say nothing: the line breaks.
        let Some(reply) = reply else { return };
        if write(stream.get_mut(), &reply).is_err() {
            return;
        }
    }
}

fn read(stream: &mut impl BufRead) -> Option<Question> {
    let mut line = String::new();
    stream.read_line(&mut line).ok().filter(|octets| *octets > 0)?;
    let mut words = line.split_ascii_whitespace().map(str::to_owned);
    let (method, path) = (words.next()?, words.next()?);
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).ok().filter(|octets| *octets > 0)?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let length = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    stream.read_exact(&mut body).ok()?;
    Some(Question { method, path, headers, body })
}

fn write(stream: &mut impl Write, reply: &Reply) -> std::io::Result<()> {
    let mut head = format!("HTTP/1.1 {} X\r\ncontent-length: {}\r\n", reply.status, reply.body.len());
    for (name, value) in &reply.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    stream.write_all(format!("{head}\r\n").as_bytes())?;
    stream.write_all(&reply.body)?;
    stream.flush()
}
