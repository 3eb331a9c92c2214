//! Groups: what is sent to one address and arrives at several machines.

use std::net::IpAddr;

use super::{SimNet, lock};

impl SimNet {
    /// Lets a machine join a group: what is sent to the address of the group, at any port, reaches the
    /// endpoints of all its members at that port, with [`Meta::delivery`] set to
    /// [`Multicast`](crate::transport::Delivery::Multicast), or to
    /// [`Broadcast`](crate::transport::Delivery::Broadcast) if it is no multicast address. The members'
    /// own address is the [local](crate::transport::Meta::local) one.
    ///
    /// Each member is sent a datagram of its own, over its own link, in the order of joining: scripts and
    /// traces count them all. A sender that is a member receives what it sends, as on real machines. To
    /// join twice changes nothing.
    ///
    /// [`Meta::delivery`]: crate::transport::Meta::delivery
    ///
    /// ```
    /// use rejoinder::sim::SimNet;
    /// use rejoinder::transport::{Delivery, Inbox, Outbox};
    /// use rejoinder::{Transport, Wait};
    ///
    /// let net = SimNet::new();
    /// let group = "239.1.2.3".parse()?;
    /// let mut members = [net.bind("10.0.0.1:9999".parse()?)?, net.bind("10.0.0.2:9999".parse()?)?];
    /// for member in &members {
    ///     net.join_group(group, member.local_addr()?.ip());
    /// }
    /// net.inject("10.0.0.3:40000".parse()?, (group, 9999).into(), b"who is there?");
    /// for member in &mut members {
    ///     let mut inbox = Inbox::new(1, 512);
    ///     member.recv(&mut inbox, Wait::Forever)?;
    ///     let received = inbox.pop().expect("a datagram arrived");
    ///     assert_eq!(received.meta.delivery, Delivery::Multicast);
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn join_group(&self, group: IpAddr, member: IpAddr) {
        let (group, member) = (group.to_canonical(), member.to_canonical());
        let mut state = lock(&self.state);
        let members = state.groups.entry(group).or_default();
        if !members.contains(&member) {
            members.push(member);
        }
    }

    /// Lets a machine leave a group. What is in flight still arrives.
    ///
    /// ```
    /// use rejoinder::sim::SimNet;
    ///
    /// let net = SimNet::new();
    /// let (group, member) = ("239.1.2.3".parse()?, "10.0.0.1".parse()?);
    /// net.join_group(group, member);
    /// net.leave_group(group, member);
    /// net.inject("10.0.0.3:40000".parse()?, (group, 9999).into(), b"who is there?");
    /// assert_eq!(net.trace().total(), 0);
    /// # Ok::<(), std::net::AddrParseError>(())
    /// ```
    pub fn leave_group(&self, group: IpAddr, member: IpAddr) {
        let mut state = lock(&self.state);
        if let Some(members) = state.groups.get_mut(&group.to_canonical()) {
            members.retain(|one| *one != member.to_canonical());
        }
    }
}
