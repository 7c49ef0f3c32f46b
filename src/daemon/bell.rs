//! The bell between the halves: an empty datagram that says "look at the log". It is only a hint; who misses it looks a
//! second later anyway.

use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::DaemonError;

/// Bound by the deliver half in the runtime directory.
pub const NAME: &str = "deliver.bell";

/// Rings the bell at `path`; never waits and never fails.
pub fn ringer(path: PathBuf) -> Box<dyn Fn() + Send> {
    let socket = UnixDatagram::unbound().and_then(|socket| socket.set_nonblocking(true).map(|()| socket));
    Box::new(move || {
        if let Ok(socket) = &socket {
            let _ = socket.send_to(&[], &path);
        }
    })
}

/// Binds the bell and counts its rings.
pub fn listen(path: &Path) -> Result<(watch::Receiver<u64>, tokio::net::UnixDatagram, watch::Sender<u64>), DaemonError> {
    let fail = |source| DaemonError::Socket { path: path.into(), source };
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(fail(error)),
        _ => {}
    }
    let socket = tokio::net::UnixDatagram::bind(path).map_err(fail)?;
    let (rings, heard) = watch::channel(0);
    Ok((heard, socket, rings))
}

pub async fn hear(
    socket: tokio::net::UnixDatagram,
    rings: watch::Sender<u64>,
    stop: CancellationToken,
) -> Result<(), DaemonError> {
    let mut nothing = [0; 1];
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            received = socket.recv(&mut nothing) => match received {
                Ok(_) => rings.send_modify(|n| *n = n.wrapping_add(1)),
                Err(error) => return Err(DaemonError::Failed(format!("the bell: {error}"))),
            }
        }
    }
}
