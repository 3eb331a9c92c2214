use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::iter;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::timestamp::Timestamp;
use crate::transport::{Connect, Inbox, Outbox, SendReport, Transport, Wait};

/// A transport, or a connector, that fails where a test wants it to.
///
/// It passes everything on to the one that it wraps, but for the faults that its [`Faults`] hold.
///
/// ```
/// use rejoinder::codec::Text;
/// use rejoinder::sim::SimNet;
/// use rejoinder::testing::{FaultyTransport, Faults};
/// use rejoinder::{Client, RequestError};
/// use std::io::{Error, ErrorKind};
///
/// let faults = Faults::new();
/// faults.on_connect(1, &Error::from(ErrorKind::OutOfMemory));
/// let net = FaultyTransport::new(SimNet::new(), &faults);
/// let mut client = Client::new(net, Text, "10.0.0.1:9999".parse()?);
/// let error = client.request("hello?").unwrap_err();
/// assert!(matches!(error, RequestError::Connect { .. }));
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
#[derive(Debug)]
pub struct FaultyTransport<T> {
    inner: T,
    faults: Faults,
}

impl<T> FaultyTransport<T> {
    /// Wraps a [`Transport`] or a [`Connect`]. The faults are shared: those that come later count too.
    pub fn new(inner: T, faults: &Faults) -> Self {
        Self {
            inner,
            faults: faults.clone(),
        }
    }
}

/// The faults to come of a [`FaultyTransport`]. A clone holds the same ones.
///
/// ```
/// use rejoinder::testing::{FaultyTransport, Faults};
/// use rejoinder::transport::{Inbox, Outbox};
/// use rejoinder::udp::UdpTransport;
/// use rejoinder::{Transport, Wait};
/// use std::io::{Error, ErrorKind};
///
/// let faults = Faults::new();
/// let mut socket = FaultyTransport::new(UdpTransport::bind("127.0.0.1:0")?, &faults);
/// let (mut inbox, mut outbox) = (Inbox::new(1, 512), Outbox::new(8, 512));
///
/// faults.on_receive(2, &Error::from(ErrorKind::ConnectionRefused));
/// assert!(socket.recv(&mut inbox, Wait::No).is_err());
/// assert!(socket.recv(&mut inbox, Wait::No).is_err());
/// assert_eq!(socket.recv(&mut inbox, Wait::No)?, 0);
///
/// faults.on_send(1, &Error::from(ErrorKind::PermissionDenied));
/// let peer = socket.local_addr()?;
/// outbox.push(peer, None, b"refused")?;
/// outbox.push(peer, None, b"sent")?;
/// let report = socket.send(&outbox);
/// assert_eq!((report.sent, report.failed), (1, 1));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Default)]
pub struct Faults {
    queues: Arc<Mutex<Queues>>,
}

#[derive(Default)]
struct Queues {
    receive: VecDeque<QueuedError>,
    send: VecDeque<QueuedError>,
    connect: VecDeque<QueuedError>,
}

/// An error that can be copied: the OS's code, or the kind.
#[derive(Clone, Copy)]
struct QueuedError {
    code: Option<i32>,
    kind: io::ErrorKind,
}

impl Faults {
    /// No faults yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The next `times` attempts to receive fail.
    pub fn on_receive(&self, times: usize, error: &io::Error) {
        extend(&mut self.lock().receive, times, error);
    }

    /// The next `times` datagrams are refused. Others of the same outbox are sent.
    pub fn on_send(&self, times: usize, error: &io::Error) {
        extend(&mut self.lock().send, times, error);
    }

    /// The next `times` attempts to connect fail.
    ///
    /// ```
    /// use rejoinder::sim::SimNet;
    /// use rejoinder::testing::{FaultyTransport, Faults};
    /// use rejoinder::transport::Connect;
    /// use std::io::{Error, ErrorKind};
    ///
    /// let faults = Faults::new();
    /// let net = FaultyTransport::new(SimNet::new(), &faults);
    /// faults.on_connect(1, &Error::from(ErrorKind::AddrNotAvailable));
    /// let peer = "10.0.0.1:9999".parse()?;
    /// assert!(net.connect(peer).is_err());
    /// assert!(net.connect(peer).is_ok());
    /// # Ok::<(), std::net::AddrParseError>(())
    /// ```
    pub fn on_connect(&self, times: usize, error: &io::Error) {
        extend(&mut self.lock().connect, times, error);
    }

    fn lock(&self) -> MutexGuard<'_, Queues> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let queues = self.lock();
        f.debug_struct("Faults")
            .field("receive", &queues.receive.len())
            .field("send", &queues.send.len())
            .field("connect", &queues.connect.len())
            .finish()
    }
}

impl<T: Transport> Transport for FaultyTransport<T> {
    fn recv(&mut self, inbox: &mut Inbox, wait: Wait) -> io::Result<usize> {
        let fault = self.faults.lock().receive.pop_front();
        match fault {
            Some(fault) => Err(fault.into()),
            None => self.inner.recv(inbox, wait),
        }
    }

    fn send(&mut self, outbox: &Outbox) -> SendReport {
        if self.faults.lock().send.is_empty() {
            return self.inner.send(outbox);
        }
        let mut report = SendReport::default();
        for datagram in outbox.iter() {
            let fault = self.faults.lock().send.pop_front();
            if let Some(fault) = fault {
                report.record_failure(fault.into());
                continue;
            }
            let mut one = Outbox::new(1, datagram.bytes.len());
            one.push(datagram.peer, datagram.egress, datagram.bytes)
                .expect("the outbox has room for this datagram");
            let sent = self.inner.send(&one);
            report.sent += sent.sent;
            if let Some(error) = sent.last_error {
                report.record_failure(error);
            }
        }
        report
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    fn wait_for_room(&mut self, wait: Wait) -> io::Result<()> {
        self.inner.wait_for_room(wait)
    }

    fn is_local_ip(addr: SocketAddr) -> bool {
        T::is_local_ip(addr)
    }

    fn kernel_drops(&self) -> u64 {
        self.inner.kernel_drops()
    }

    fn now(&self) -> Timestamp {
        self.inner.now()
    }
}

impl<N: Connect> Connect for FaultyTransport<N> {
    type Transport = FaultyTransport<N::Transport>;

    fn connect(&self, peer: SocketAddr) -> io::Result<Self::Transport> {
        let fault = self.faults.lock().connect.pop_front();
        match fault {
            Some(fault) => Err(fault.into()),
            None => Ok(FaultyTransport::new(
                self.inner.connect(peer)?,
                &self.faults,
            )),
        }
    }

    fn now(&self) -> Timestamp {
        self.inner.now()
    }

    fn entropy(&self, bytes: &mut [u8]) -> io::Result<()> {
        self.inner.entropy(bytes)
    }

    fn wait_any(
        &self,
        transports: &[&Self::Transport],
        wait: Wait,
        ready: &mut Vec<usize>,
    ) -> io::Result<()> {
        // A fault of receiving shows at once.
        if !self.faults.lock().receive.is_empty() {
            ready.extend(0..transports.len());
            return Ok(());
        }
        let inner: Vec<_> = transports.iter().map(|one| &one.inner).collect();
        self.inner.wait_any(&inner, wait, ready)
    }
}

impl From<QueuedError> for io::Error {
    fn from(fault: QueuedError) -> Self {
        match fault.code {
            Some(code) => Self::from_raw_os_error(code),
            None => fault.kind.into(),
        }
    }
}

fn extend(queue: &mut VecDeque<QueuedError>, times: usize, error: &io::Error) {
    let fault = QueuedError {
        code: error.raw_os_error(),
        kind: error.kind(),
    };
    queue.extend(iter::repeat_n(fault, times));
}
