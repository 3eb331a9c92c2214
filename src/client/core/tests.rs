use std::io;
use std::time::{Duration, SystemTime};

use crate::codec::Text;
use crate::transport::{Inbox, Meta, Outbox, SendReport};
use crate::{Client, Timestamp};

#[test]
fn the_next_request_of_a_slot_uses_its_buffers_again() -> io::Result<()> {
    let server = ([192, 0, 2, 1], 7).into();
    let core = Client::builder(Text).window(1).core(server);
    let mut core = core.map_err(io::Error::other)?;
    let now = Timestamp::new(Duration::ZERO, SystemTime::UNIX_EPOCH);
    let (mut inbox, mut outbox) = (Inbox::new(1, 512), Outbox::new(1, 512));
    core.submit(now, "question", &mut || Ok(0))
        .map_err(io::Error::other)?;
    let socket = core.poll_send(now, &mut outbox).expect("it is due");
    core.on_sent(now, &SendReport::accepted(1));
    inbox.push(b"answer", Meta::new(server));
    core.on_receive(now, socket, &mut inbox);
    assert!(core.poll_result().is_some_and(|(_, result)| result.is_ok()));

    // As if its buffers had grown.
    let slot = &mut core.slots[0];
    slot.response.reserve(1_000);
    slot.routes.reserve(1_000);
    let part = (0, 1_000);
    slot.parts
        .add(&mut Vec::new(), part, b"part", (1_000, 1_000));
    core.submit(now, "another", &mut || Ok(0))
        .map_err(io::Error::other)?;
    assert_eq!(core.slots.len(), 1);
    let slot = &core.slots[0];
    let capacities = [
        slot.response.capacity(),
        slot.routes.capacity(),
        slot.parts.capacity(),
    ];
    assert!(capacities.iter().all(|&capacity| capacity >= 1_000));
    Ok(())
}
