//! What a service needs to run behind proxies and balancers, and to be taken out of service.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rejoinder::proxy::{Proxies, ProxyMode};
use rejoinder::{Codec, Context, Handler, Reply, ReplyError, ServerBuilder, ServerHandle};

use crate::program::http::{Endpoint, Page};
use crate::program::{Failure, manager, say};
use crate::serve::network::{self, Network};

/// How balancers learn about a service.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Fleet {
    /// Answer health checks over HTTP at an address: 200 while in service, 503 when not
    ///
    /// Every path but one shows that. /live shows 200 as long as the program runs
    #[arg(long, value_name = "ADDRESS")]
    health: Option<String>,
    /// At the first SIGTERM or SIGINT, leave service and answer on for so long; 0.1 to 3600
    ///
    /// Meanwhile balancers take it off their lists. What has arrived by then is answered, and the program
    /// ends. A second signal ends it at once
    #[arg(
        long, value_name = "SECONDS", value_parser = lame_duck, allow_negative_numbers = true
    )]
    lame_duck: Option<Duration>,
}

impl Fleet {
    /// Binds the endpoint for health checks.
    pub(crate) fn open(&self) -> Result<Member, Failure> {
        let health = self.health.as_deref();
        let health = health.map(|text| Endpoint::bind("--health", text, HEALTH_PORT));
        Ok(Member {
            health: health.transpose()?,
            lame_duck: self.lame_duck,
            ends: None,
        })
    }
}

/// A service as one of several.
#[derive(Debug, Default)]
pub(crate) struct Member {
    health: Option<Endpoint>,
    lame_duck: Option<Duration>,
    /// When it ends, once it is out of service.
    ends: Option<Instant>,
}

impl Member {
    pub(crate) fn announce(&self) -> Result<(), Failure> {
        if let Some(health) = &self.health {
            say(format_args!("health on {}", health.addr()?));
        }
        Ok(())
    }

    /// Answers health checks on a thread of its own, as long as the program runs.
    pub(super) fn serve(&mut self, servers: Vec<ServerHandle>) -> Result<(), Failure> {
        let Some(health) = self.health.take() else {
            return Ok(());
        };
        let page = move |path: &str| {
            let is_ready = || servers.iter().all(ServerHandle::is_ready);
            Some(match path {
                "/live" => Page::text("200 OK", "running\n"),
                _ if is_ready() => Page::text("200 OK", "in service\n"),
                _ => Page::text("503 Service Unavailable", "out of service\n"),
            })
        };
        health
            .serve("health", page)
            .map_err(|error| Failure::RunTime(format!("cannot start a thread: {error}")))
    }

    /// Leaves service, if the program is to answer on for a while. `false` if it is to end now.
    pub(super) fn leave<'a>(&mut self, servers: impl Iterator<Item = &'a ServerHandle>) -> bool {
        let Some(lame_duck) = self.lame_duck.filter(|_| self.ends.is_none()) else {
            return false;
        };
        for server in servers {
            server.set_ready(false);
        }
        self.ends = Some(Instant::now() + lame_duck);
        manager::stopping(Some(lame_duck));
        say(format_args!(
            "out of service; answering on for {} s (a second signal ends it at once)",
            lame_duck.as_secs_f64()
        ));
        true
    }

    /// How long it still answers, once it has left service.
    pub(super) fn left(&self) -> Option<Duration> {
        let ends = self.ends?;
        Some(ends.saturating_duration_since(Instant::now()))
    }
}

/// Which proxies are in front of a service, and how they name the client.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Behind {
    /// The client is the one that a PROXY header names: in each datagram, or in the first of a flow
    ///
    /// A datagram without a valid header is dropped, and so is one that comes from none of --proxies
    #[arg(long, value_name = "MODE", requires = "proxies")]
    proxied: Option<Mode>,
    /// The networks of the proxies, such as 10.0.0.0/8 or one address; several with commas, or repeated
    #[arg(
        long, value_name = "NET", value_parser = network::parse, value_delimiter = ',',
        requires = "proxied"
    )]
    proxies: Vec<Network>,
}

/// Which datagrams have a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Mode {
    /// Binary, in each datagram: dnsdist
    V2,
    /// Text, in each datagram: nginx with `proxy_requests 1`
    V1,
    /// Either, in the first datagram of a flow: nginx without it. A client can name any address then, so
    /// limits by client are advisory; v2 has no such hole
    FirstOfFlow,
}

impl Behind {
    /// Whether there are proxies: then a service has clients on other machines, wherever it listens.
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.proxied.is_some()
    }

    /// Puts a server behind the proxies, if there are any.
    ///
    /// # Errors
    ///
    /// If a prefix is none.
    pub fn apply<C: Codec, G: rejoinder::gate::Gate>(
        &self,
        builder: ServerBuilder<C, G>,
    ) -> Result<ServerBuilder<C, G>, Failure> {
        let Some(mode) = self.proxied else {
            return Ok(builder);
        };
        let mut proxies = Proxies::builder(match mode {
            Mode::V2 => ProxyMode::V2,
            Mode::V1 => ProxyMode::V1,
            Mode::FirstOfFlow => ProxyMode::FirstOfFlow,
        });
        for network in &self.proxies {
            proxies = proxies.trust(network.ip, network.bits);
        }
        let proxies = proxies.build();
        let proxies = proxies.map_err(|error| Failure::Usage(format!("bad --proxies: {error}")))?;
        Ok(builder.behind(proxies))
    }

    /// A line about the proxies, if there are any.
    #[must_use]
    pub fn note(&self) -> Option<String> {
        let mode = match self.proxied? {
            Mode::V2 => "version 2, in each datagram",
            Mode::V1 => "version 1, in each datagram",
            Mode::FirstOfFlow => "in the first datagram of a flow",
        };
        let networks: Vec<_> = self.proxies.iter().map(ToString::to_string).collect();
        let networks = networks.join(", ");
        Some(format!(
            "behind the proxies {networks}: clients are those that a PROXY header names ({mode})"
        ))
    }
}

/// A handler that does not answer a proxy's own health checks while the server is out of service, so that
/// the proxy takes it off its list.
pub(super) struct InService<H> {
    pub(super) handler: H,
    pub(super) server: ServerHandle,
}

impl<C: Codec, H: Handler<C>> Handler<C> for InService<H> {
    #[inline]
    fn handle(
        &self,
        request: C::Request<'_>,
        context: &Context,
        reply: &mut Reply<'_, C>,
    ) -> Result<(), ReplyError> {
        let is_check = context.proxied.is_some_and(|one| one.is_health_check);
        if is_check && !self.server.is_ready() {
            return Ok(());
        }
        self.handler.handle(request, context, reply)
    }
}

/// How many answers each network prefix gets in a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// The default number, if other machines can ask.
    ForOthers,
    /// The default number, in any case.
    Always,
    /// So many.
    Answers(u32),
    /// As many as it asks for.
    Off,
}

impl Limit {
    /// The number for a server with these addresses. `default` is the default number.
    pub(crate) fn answers(self, addresses: &[SocketAddr], default: u32) -> Option<u32> {
        let is_local = addresses.iter().all(|addr| addr.ip().is_loopback());
        match self {
            Self::ForOthers if is_local => None,
            Self::ForOthers | Self::Always => Some(default),
            Self::Answers(answers) => Some(answers),
            Self::Off => None,
        }
    }

    /// The same, where clients on other machines come by a proxy on this one.
    #[must_use]
    pub fn behind(self, behind: &Behind) -> Self {
        match self {
            Self::ForOthers if behind.is_set() => Self::Always,
            limit => limit,
        }
    }
}

/// Reads a value of `--limit`.
///
/// # Errors
///
/// If it is none.
pub fn limit(text: &str) -> Result<Limit, &'static str> {
    match text.parse() {
        Ok(answers) if answers > 0 => Ok(Limit::Answers(answers)),
        Err(_) if text == "off" => Ok(Limit::Off),
        Err(_) if text == "default" => Ok(Limit::ForOthers),
        _ => Err("neither a number of answers per second, 1 to 4294967295, nor `off`"),
    }
}

fn lame_duck(text: &str) -> Result<Duration, &'static str> {
    text.parse()
        .ok()
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .filter(|time| (Duration::from_millis(100)..=LONGEST_LAME_DUCK).contains(time))
        .ok_or("not a number of seconds from 0.1 to 3600")
}

/// Beside the port of the metrics.
const HEALTH_PORT: u16 = 9_889;
/// Longer than balancers remember a flow. A service manager can be asked for 71 minutes at most.
const LONGEST_LAME_DUCK: Duration = Duration::from_secs(3_600);
