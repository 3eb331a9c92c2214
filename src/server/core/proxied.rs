use crate::drop_reason::DropReason;
use crate::proxy::{Proxies, Unwrapped};
use crate::timestamp::Timestamp;
use crate::transport::{Datagram, Meta};

/// The proxies in front of a server.
#[derive(Clone, Debug)]
pub(in crate::server) struct Behind {
    pub(in crate::server) proxies: Proxies,
    /// Without the header.
    pub(in crate::server) max_request_bytes: usize,
}

impl Behind {
    /// The datagram as the client sent it.
    #[inline]
    pub(super) fn unwrap<'d>(
        &mut self,
        now: Timestamp,
        datagram: &Datagram<'d>,
    ) -> Result<Datagram<'d>, DropReason> {
        if datagram.meta.truncated {
            return Err(DropReason::Truncated);
        }
        let Unwrapped {
            client,
            payload,
            proxied,
            header,
        } = self.proxies.unwrap(now, datagram)?;
        let meta = Meta {
            peer: client,
            truncated: payload.len() > self.max_request_bytes,
            ..datagram.meta
        };
        let mut unwrapped = Datagram::new(payload, meta);
        unwrapped.proxied = Some(proxied);
        unwrapped.proxy_header = header;
        unwrapped.identity = datagram.identity;
        Ok(unwrapped)
    }
}
