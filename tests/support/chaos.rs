//! A TCP proxy on the loopback that misbehaves on demand. Bytes that were passed on are gone from the proxy: what it
//! resets or drops, nobody but the two ends can make good.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::net::sockopt::set_socket_linger;

/// How soon a change of behaviour is noticed.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// What is read at once; more waits in the kernel, as on a real path.
const CHUNK: usize = 16 * 1024;

#[derive(Default)]
struct State {
    target: AtomicU16,
    black_hole: AtomicBool,
    refuse: AtomicBool,
    drop_replies: AtomicBool,
    delay_ms: AtomicU64,
    closing: AtomicBool,
    accepted: AtomicU64,
    resets: AtomicU64,
    bytes_up: AtomicU64,
    bytes_down: AtomicU64,
    bytes_dropped: AtomicU64,
    streams: Mutex<Vec<Arc<TcpStream>>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counters {
    pub accepted: u64,
    pub resets: u64,
    /// Bytes passed on from client to server.
    pub bytes_up: u64,
    pub bytes_down: u64,
    pub bytes_dropped: u64,
}

pub struct ChaosProxy {
    port: u16,
    state: Arc<State>,
    accepting: Option<JoinHandle<()>>,
}

impl ChaosProxy {
    /// Passes connections on to `target` on the loopback.
    pub fn start(target: u16) -> Self {
        let listener = listen(0).expect("a port for the proxy");
        let port = listener.local_addr().expect("it is bound").port();
        let state = Arc::new(State { target: AtomicU16::new(target), ..State::default() });
        let shared = state.clone();
        let accepting = std::thread::spawn(move || accept(port, listener, &shared));
        Self { port, state, accepting: Some(accepting) }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Everything passes again.
    pub fn pass(&self) {
        self.black_hole(false);
        self.refuse(false);
        self.drop_replies(false);
        self.delay(Duration::ZERO);
    }

    /// Ends every connection with RST on both sides; says how many connections that were.
    pub fn reset_all(&self) -> usize {
        let streams = std::mem::take(&mut *lock(&self.state.streams));
        for stream in &streams {
            // Linger 0 makes the close a reset; the shutdown wakes the threads that hold the socket too.
            let _ = set_socket_linger(&**stream, Some(Duration::ZERO));
            let _ = stream.shutdown(Shutdown::Read);
        }
        let connections = streams.len() / 2;
        self.state.resets.fetch_add(connections as u64, SeqCst);
        connections
    }

    /// While on, nothing is taken or passed on either way, and no connection is ended: to the ends the path is dead.
    pub fn black_hole(&self, on: bool) {
        self.state.black_hole.store(on, SeqCst);
    }

    /// While on, nobody listens. Connections that stand go on.
    pub fn refuse(&self, on: bool) {
        self.state.refuse.store(on, SeqCst);
        // The listener is closed or back when this returns to a caller who then connects.
        std::thread::sleep(3 * LOOK_EVERY);
    }

    /// While on, what the server sends is thrown away: acknowledgements are lost, publishes arrive.
    pub fn drop_replies(&self, on: bool) {
        self.state.drop_replies.store(on, SeqCst);
    }

    /// Holds every chunk back for this long.
    pub fn delay(&self, delay: Duration) {
        self.state.delay_ms.store(u64::try_from(delay.as_millis()).expect("a sane delay"), SeqCst);
    }

    pub fn counters(&self) -> Counters {
        let state = &self.state;
        Counters {
            accepted: state.accepted.load(SeqCst),
            resets: state.resets.load(SeqCst),
            bytes_up: state.bytes_up.load(SeqCst),
            bytes_down: state.bytes_down.load(SeqCst),
            bytes_dropped: state.bytes_dropped.load(SeqCst),
        }
    }
}

impl Drop for ChaosProxy {
    fn drop(&mut self) {
        self.state.closing.store(true, SeqCst);
        self.reset_all();
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
    }
}

fn listen(port: u16) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(("127.0.0.1", port))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

fn accept(port: u16, listener: TcpListener, state: &Arc<State>) {
    let mut listener = Some(listener);
    while !state.closing.load(SeqCst) {
        if state.refuse.load(SeqCst) {
            listener = None;
        } else if listener.is_none() {
            listener = listen(port).ok();
        }
        match listener.as_ref().map(TcpListener::accept) {
            Some(Ok((client, _))) => join(client, state),
            _ => std::thread::sleep(LOOK_EVERY),
        }
    }
}

fn join(client: TcpStream, state: &Arc<State>) {
    let Ok(server) = TcpStream::connect(("127.0.0.1", state.target.load(SeqCst))) else {
        // To the client this looks like what it is: nobody there.
        let _ = set_socket_linger(&client, Some(Duration::ZERO));
        return;
    };
    state.accepted.fetch_add(1, SeqCst);
    for stream in [&client, &server] {
        let _ = (stream.set_nonblocking(false), stream.set_nodelay(true));
        let _ = (stream.set_read_timeout(Some(LOOK_EVERY)), stream.set_write_timeout(Some(LOOK_EVERY)));
    }
    let (client, server) = (Arc::new(client), Arc::new(server));
    lock(&state.streams).extend([client.clone(), server.clone()]);
    for (from, to, up) in [(client.clone(), server.clone(), true), (server, client, false)] {
        let state = state.clone();
        std::thread::spawn(move || pump(&from, &to, up, &state));
    }
}

fn pump(from: &Arc<TcpStream>, to: &Arc<TcpStream>, up: bool, state: &State) {
    let mut chunk = [0; CHUNK];
    let is_reset = |stream: &Arc<TcpStream>| !lock(&state.streams).iter().any(|held| Arc::ptr_eq(held, stream));
    loop {
        if is_reset(from) {
            break;
        }
        if state.black_hole.load(SeqCst) {
            std::thread::sleep(LOOK_EVERY);
            continue;
        }
        let length = match (&**from).read(&mut chunk) {
            Ok(0) => break,
            Ok(length) => length,
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted) => continue,
            Err(_) => break,
        };
        std::thread::sleep(Duration::from_millis(state.delay_ms.load(SeqCst)));
        if !up && state.drop_replies.load(SeqCst) {
            state.bytes_dropped.fetch_add(length as u64, SeqCst);
            continue;
        }
        while state.black_hole.load(SeqCst) && !is_reset(from) {
            std::thread::sleep(LOOK_EVERY);
        }
        if !pass_on(to, &chunk[..length], || is_reset(from)) {
            break;
        }
        let counter = if up { &state.bytes_up } else { &state.bytes_down };
        counter.fetch_add(length as u64, SeqCst);
    }
    if !is_reset(from) {
        // An ordinary end is passed on as one.
        let _ = to.shutdown(Shutdown::Write);
        let _ = from.shutdown(Shutdown::Read);
        if !up {
            lock(&state.streams).retain(|held| !Arc::ptr_eq(held, from) && !Arc::ptr_eq(held, to));
        }
    }
}

/// Writes all of it, unless the far end is gone or `given_up` says so while it takes nothing.
fn pass_on(mut to: &TcpStream, mut octets: &[u8], given_up: impl Fn() -> bool) -> bool {
    while !octets.is_empty() {
        if given_up() {
            return false;
        }
        match to.write(octets) {
            Ok(written) => octets = &octets[written..],
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted) => {}
            Err(_) => return false,
        }
    }
    true
}

fn lock(streams: &Mutex<Vec<Arc<TcpStream>>>) -> MutexGuard<'_, Vec<Arc<TcpStream>>> {
    streams.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}
