use std::io;
use std::thread;
use std::time::Duration;

use super::config::WorkerConfig;
use super::core::ServerCore;
use super::shared::Shared;
use super::stats::Stats;
use crate::backoff::ReceiveBackoff;
use crate::codec::Codec;
use crate::gate::Gate;
use crate::handler::{Handler, MAX_RESPONSES};
use crate::transport::{ErrorClass, Inbox, Outbox, Transport, Wait};

/// One thread's part of a server: a transport, its core and the batches between them.
pub(super) struct Worker<'a, T, C, H, G> {
    transport: T,
    core: ServerCore<C, H, G>,
    inbox: Inbox,
    outbox: Outbox,
    wait: Wait,
    shared: &'a Shared,
    index: usize,
}

/// How a worker ended.
pub(super) struct Ended {
    pub(super) stats: Stats,
    /// The transport's error, if the worker was not asked to end.
    pub(super) gone: Option<io::Error>,
}

impl<'a, T, C, H, G> Worker<'a, T, C, H, G>
where
    T: Transport,
    C: Codec,
    H: Handler<C>,
    G: Gate,
{
    pub(super) fn new(
        transport: T,
        core: ServerCore<C, H, G>,
        config: WorkerConfig,
        shared: &'a Shared,
        index: usize,
    ) -> Self {
        Self {
            transport,
            core,
            inbox: Inbox::new(BATCH, config.max_received_bytes()),
            outbox: Outbox::new(MAX_RESPONSES_PER_BATCH, config.max_response_bytes),
            wait: if config.busy_poll {
                Wait::Spin(SHUTDOWN_CHECK)
            } else {
                Wait::For(SHUTDOWN_CHECK)
            },
            shared,
            index,
        }
    }

    /// Receives and answers until the server is shut down or the transport is gone.
    pub(super) fn run(mut self) -> Ended {
        let mut backoff = ReceiveBackoff::new();
        let mut drained = 0;
        let mut drain_failures = 0;
        loop {
            let shutdown = self.shared.is_shutdown();
            let wait = match shutdown {
                true if drained >= MAX_DRAINED => break,
                true => Wait::No,
                false => self.wait,
            };
            match self.transport.recv(&mut self.inbox, wait) {
                Ok(0) if shutdown => break,
                Ok(received) => {
                    backoff.reset();
                    drain_failures = 0;
                    if shutdown {
                        drained = received.saturating_add(drained);
                    }
                }
                Err(error) => {
                    self.core.on_receive_error(self.transport.now(), &error);
                    let class = ErrorClass::classify_receive(&error);
                    if class == ErrorClass::Gone {
                        return self.end(Some(error));
                    }
                    let pause = backoff.pause_after(class);
                    if !shutdown {
                        self.publish();
                        thread::sleep(pause);
                    } else if drain_failures == MAX_DRAIN_FAILURES {
                        // Of any class: a transport may report interruptions without end.
                        break;
                    } else {
                        drain_failures += 1;
                    }
                }
            }
            self.answer();
        }
        self.end(None)
    }

    /// Answers what is in the inbox. An error of receiving says nothing about the datagrams that came
    /// before it.
    fn answer(&mut self) {
        self.core.set_kernel_drops(self.transport.kernel_drops());
        let received = self.transport.now();
        while !self.inbox.is_empty() {
            let clock = || self.transport.now();
            self.core
                .handle_with_clock(received, clock, &mut self.inbox, &mut self.outbox);
            self.core.on_sent(&self.transport.send(&self.outbox));
            self.outbox.clear();
            self.publish();
        }
    }

    fn publish(&self) {
        self.shared.publish(self.index, &self.core);
    }

    fn end(self, gone: Option<io::Error>) -> Ended {
        self.publish();
        Ended {
            stats: self.core.stats(),
            gone,
        }
    }
}

/// How often an idle server looks whether it was shut down.
const SHUTDOWN_CHECK: Duration = Duration::from_millis(250);
/// Buffers for receiving. With 64 peers that have two requests each in flight, twice as many as 64 let
/// most of the responses leave in pairs; 256 are no better.
pub(crate) const BATCH: usize = 128;
/// How many responses leave at once: more would not be faster.
pub(crate) const MAX_RESPONSES_PER_BATCH: usize = 1_024 + MAX_RESPONSES;
/// How many datagrams each worker still answers after a shutdown was asked for.
pub(crate) const MAX_DRAINED: usize = 65_536;
/// How many times in a row receiving may fail before a worker that was asked to end gives up.
pub(crate) const MAX_DRAIN_FAILURES: u32 = 16;
