//! A session on a line: dials, reads and writes, waits. Everything here may be cancelled between two polls.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::io::poll_read_buf;

use super::CLOSE_GRACE;
use super::session::{Event, Purpose, Session};
use crate::deliver::mqtt::link::{LinkSettings, Login, LostReason};
use crate::net::{self, DialError, Dialled, Line, TlsFault, classify};

type Dialling = Pin<Box<dyn Future<Output = Result<Box<dyn Line>, LostReason>> + Send>>;

pub struct Connection {
    pub session: Session,
    settings: LinkSettings,
    purpose: Purpose,
    state: State,
    login: Option<Login>,
    /// When the login is to be replaced.
    renew_at: Option<Instant>,
}

enum State {
    Dialling(Dialling),
    /// `flushed`: the line holds back nothing it took.
    Up {
        line: Box<dyn Line>,
        flushed: bool,
    },
    Gone,
}

impl Connection {
    pub fn open(settings: LinkSettings, purpose: Purpose) -> Self {
        let session = Session::new(&settings, purpose.clone(), Instant::now());
        let login = settings.login.clone();
        let mut connection = Self { session, settings, purpose, state: State::Gone, login, renew_at: None };
        connection.dial(None);
        connection
    }

    /// The next thing that happened. After `Lost` it says `Lost` again.
    pub async fn event(&mut self) -> Event {
        loop {
            let now = Instant::now();
            if let Some(event) = self.session.event(now) {
                let Event::Lost(reason) = event else { return event };
                self.state = State::Gone;
                return Event::Lost(match reason {
                    LostReason::BadLogin | LostReason::NotAuthorized if self.settings.sas.is_some() => LostReason::TokenRefused,
                    reason => reason,
                });
            }
            if self.renewal_due(now) && self.session.under_way() == 0 {
                self.renew();
            }
            let due = [self.session.due(), self.renew_at.filter(|at| *at > now)].into_iter().flatten().min();
            // What has happened comes before what is late: a busy shell must not find its own delay in the watchdog.
            tokio::select! {
                biased;
                () = poll_fn(|cx| self.poll(cx)) => {}
                () = until(due) => self.session.late(Instant::now()),
            }
        }
    }

    /// Says goodbye and waits until the broker has hung up, so that what was sent last is not reset away.
    pub async fn close(mut self) {
        self.session.disconnect(Instant::now());
        let State::Up { mut line, .. } = self.state else { return };
        let _ = line.write_all(self.session.outbound()).await;
        let _ = line.shutdown().await;
        let mut rest = [0; 1024];
        while line.read(&mut rest).await.is_ok_and(|read| read > 0) {}
    }

    /// Only when it could be lived without: a connection that is not up makes its own login anyway.
    pub fn renewal_due(&self, now: Instant) -> bool {
        self.renew_at.is_some_and(|at| at <= now) && matches!(self.state, State::Up { .. })
    }

    /// A new line with a new login, once the old one has ended in order.
    fn renew(&mut self) {
        let session = Session::new(&self.settings, self.purpose.clone(), Instant::now());
        let old = Self {
            session: std::mem::replace(&mut self.session, session),
            settings: self.settings.clone(),
            purpose: self.purpose.clone(),
            state: std::mem::replace(&mut self.state, State::Gone),
            login: None,
            renew_at: None,
        };
        self.dial(Some(old));
    }

    fn dial(&mut self, before: Option<Self>) {
        self.renew_at = None;
        if let Some(sas) = &self.settings.sas {
            match sas.login(jiff::Timestamp::now()) {
                Ok(login) => (self.login, self.renew_at) = (Some(login), Some(Instant::now() + sas.renew_after())),
                Err(reason) => return self.session.lose(reason),
            }
        }
        if self.settings.tls.is_none() && !net::is_this_machine(&self.settings.host) {
            return self.session.lose(LostReason::PlainText);
        }
        let Self { settings, .. } = self;
        let to = Dialled {
            host: settings.host.clone(),
            port: settings.port,
            tls: settings.tls.clone(),
            server_name: settings.server_name.clone(),
            websocket: settings.websocket.clone(),
            proxy: settings.proxy.clone(),
        };
        self.state = State::Dialling(Box::pin(async move {
            if let Some(before) = before {
                let _ = timeout(CLOSE_GRACE, before.close()).await;
            }
            net::dial(&to).await.map_err(dial_reason)
        }));
    }

    /// Ready when there is something to look at. Does whatever the line lets it do, and loses nothing when it is dropped.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.state {
            State::Gone => Poll::Pending,
            State::Dialling(dialling) => {
                match ready!(dialling.as_mut().poll(cx)) {
                    Ok(line) => {
                        self.state = State::Up { line, flushed: true };
                        self.session.begin(&self.settings, self.login.as_ref(), Instant::now());
                    }
                    Err(reason) => self.session.lose(reason),
                }
                Poll::Ready(())
            }
            State::Up { line, flushed } => match exchange(&mut self.session, line, flushed, cx) {
                Poll::Ready(Ok(())) => Poll::Ready(()),
                Poll::Ready(Err(reason)) => {
                    self.session.lose(reason);
                    Poll::Ready(())
                }
                Poll::Pending => Poll::Pending,
            },
        }
    }
}

fn exchange(
    session: &mut Session,
    line: &mut Box<dyn Line>,
    flushed: &mut bool,
    cx: &mut Context<'_>,
) -> Poll<Result<(), LostReason>> {
    // A broker that has said why it hangs up is heard even where writing to it fails.
    let mut unwritable = None;
    while !session.outbound().is_empty() {
        match Pin::new(&mut *line).poll_write(cx, session.outbound()) {
            Poll::Ready(Ok(0)) => unwritable = Some(LostReason::Broken("the line takes nothing".to_owned())),
            Poll::Ready(Ok(octets)) => {
                session.took(octets);
                *flushed = false;
                continue;
            }
            Poll::Ready(Err(error)) => unwritable = Some(io_reason(&error)),
            Poll::Pending => {}
        }
        break;
    }
    if !*flushed {
        match Pin::new(&mut *line).poll_flush(cx) {
            Poll::Ready(Ok(())) => {
                *flushed = true;
                session.passed_on(Instant::now());
            }
            Poll::Ready(Err(error)) => unwritable = Some(io_reason(&error)),
            Poll::Pending => {}
        }
    }
    match poll_read_buf(Pin::new(line), cx, &mut session.inbound) {
        Poll::Ready(Ok(0)) => Poll::Ready(Err(unwritable.unwrap_or_else(|| LostReason::Broken("the broker hung up".to_owned())))),
        Poll::Ready(Ok(_)) => Poll::Ready(Ok(())),
        Poll::Ready(Err(error)) => Poll::Ready(Err(io_reason(&error))),
        Poll::Pending => match unwritable {
            Some(reason) => Poll::Ready(Err(reason)),
            None if session.has_events() => Poll::Ready(Ok(())),
            None => Poll::Pending,
        },
    }
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => std::future::pending().await,
    }
}

fn dial_reason(error: DialError) -> LostReason {
    match error {
        DialError::Unreachable(text) => LostReason::Unreachable(text),
        DialError::Proxy(text) => LostReason::Proxy(text),
        DialError::WebSocket(text) => LostReason::WebSocket(text),
        DialError::Tls(error) => match tls_error(&error) {
            Some(error) => tls_reason(error),
            // A server that finds nothing to agree on may hang up without an alert.
            None => LostReason::Tls { fault: TlsFault::Other, detail: error.to_string() },
        },
    }
}

fn io_reason(error: &std::io::Error) -> LostReason {
    // The broker's view of our certificate arrives with the first read, after our side of the handshake is done.
    tls_error(error).map_or_else(|| LostReason::Broken(error.to_string()), tls_reason)
}

fn tls_error(error: &std::io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}

fn tls_reason(error: &rustls::Error) -> LostReason {
    LostReason::Tls { fault: classify(error), detail: error.to_string() }
}
