//! DNS messages (RFC 1035) with EDNS (RFC 6891), for the server and the client.

use domain::base::header::HeaderSection;
use domain::base::iana::{Class, Opcode, OptRcode, Rcode, Rtype};
use domain::base::name::{ParsedName, ToLabelIter};
use domain::base::opt::{Opt, OptRecord};
use domain::base::wire::ParseError;
use domain::base::{Header, Message};
use domain::rdata::AllRecordData;
use rejoinder::gate::REFLECTOR_PORTS;
use rejoinder::{Codec, Correlation, Timestamp, Writer};

/// DNS over UDP.
#[derive(Clone, Copy, Debug)]
pub struct Dns;

/// The longest message that is sent, and received: it passes every path in one piece (RFC 9715).
pub const MAX_BYTES: u16 = 1232;

/// Resolvers may ask from port 53. Two servers could not go on answering each other: a response says
/// that it is one.
pub fn blocked_ports() -> impl Iterator<Item = u16> {
    REFLECTOR_PORTS.into_iter().filter(|port| *port != 53)
}

/// A query, borrowed from its datagram.
#[derive(Clone, Copy, Debug)]
pub struct Query<'a> {
    /// What is to be done, and whether recursion is desired. The id is the codec's affair.
    pub header: Header,
    /// The name as it is on the wire: uncompressed, its case unchanged.
    pub name: &'a [u8],
    /// The type of record that is asked for.
    pub rtype: Rtype,
    /// The class.
    pub class: Class,
    /// The OPT record, if there is one.
    pub edns: Option<Edns>,
}

/// What an OPT record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edns {
    /// The longest response that the asker takes, in bytes.
    pub udp_bytes: u16,
    /// The version of EDNS.
    pub version: u8,
    /// Whether the peer wants the records of DNSSEC.
    pub dnssec_ok: bool,
}

/// What a query is answered with.
#[derive(Clone, Copy, Debug)]
pub struct Answer<'a> {
    /// The query.
    pub query: Query<'a>,
    /// The response code.
    pub rcode: OptRcode,
    /// The answer of an authoritative server.
    pub records: Option<Records<'a>>,
}

/// Records on the wire, as they stand behind the question.
#[derive(Clone, Copy, Debug, Default)]
pub struct Records<'a> {
    /// Records in the answer section.
    pub answers: u16,
    /// Records in the authority section.
    pub authorities: u16,
    /// Records in the additional section.
    pub additionals: u16,
    /// The sections that must not be left out.
    pub bytes: &'a [u8],
    /// The additional section, which may be.
    pub additional: &'a [u8],
}

/// Why a datagram is no query, or no response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DnsError {
    /// Shorter than a header.
    #[error("shorter than a header of {HEADER_BYTES} bytes")]
    Short,
    /// What the parser says.
    #[error(transparent)]
    Parse(#[from] ParseError),
    /// The name in the question is compressed.
    #[error("the name in the question is compressed")]
    Compressed,
    /// More than one opt record.
    #[error("more than one OPT record")]
    Opts,
    /// An OPT record with a name, or outside of the additional section; or a record behind a TSIG record.
    #[error("an OPT or TSIG record that is not in its place")]
    Misplaced,
    /// Bytes after the last record.
    #[error("bytes after the last record")]
    Trailing,
    /// A query without the response bit was expected, or the other way round.
    #[error("a response where a query was expected, or the other way round")]
    Direction,
}

impl Codec for Dns {
    type Request<'a> = Query<'a>;
    type Response<'a> = Message<&'a [u8]>;
    type Answer<'a> = Answer<'a>;
    type Error = DnsError;

    fn decode_request<'a>(&self, datagram: &'a [u8]) -> Result<Query<'a>, DnsError> {
        let message = Message::from_octets(datagram).map_err(|_| DnsError::Short)?;
        if message.header().qr() {
            return Err(DnsError::Direction);
        }
        let question = message.sole_question()?;
        if question.qname().is_compressed() {
            return Err(DnsError::Compressed);
        }
        let name_bytes = usize::from(question.qname().compose_len());
        let counts = message.header_counts();
        let edns = if (counts.ancount(), counts.nscount(), counts.arcount()) != (0, 0, 0) {
            edns(message)?
        } else if datagram.len() == HEADER_BYTES + name_bytes + 4 {
            None
        } else {
            return Err(DnsError::Trailing);
        };
        Ok(Query {
            header: message.header(),
            name: &datagram[HEADER_BYTES..][..name_bytes],
            rtype: question.qtype(),
            class: question.qclass(),
            edns,
        })
    }

    fn encode_response(
        &self,
        _: Timestamp,
        request: &[u8],
        answer: Answer<'_>,
        out: &mut Writer<'_>,
    ) -> Result<(), DnsError> {
        let Answer {
            query,
            rcode,
            records,
        } = answer;
        let authoritative = records.is_some();
        let mut records = records.unwrap_or_default();
        let question = &request[HEADER_BYTES..][..query.name.len() + 4];
        let opt = query.edns.map(|edns| opt(rcode, edns.dnssec_ok));
        let limit = query
            .edns
            .map_or(512, |edns| edns.udp_bytes.clamp(512, MAX_BYTES));
        let taken = HEADER_BYTES + question.len() + opt.map_or(0, |opt| opt.len());
        let room = usize::from(limit) - taken;
        let truncated = records.bytes.len() > room;
        if truncated {
            records = Records::default();
        } else if records.bytes.len() + records.additional.len() > room {
            records = Records {
                additionals: 0,
                additional: &[],
                ..records
            };
        }

        let mut section = HeaderSection::new();
        let header = section.header_mut();
        header.set_id(query.header.id());
        header.set_qr(true);
        header.set_opcode(query.header.opcode());
        header.set_aa(authoritative);
        header.set_tc(truncated);
        header.set_rd(query.header.rd());
        header.set_rcode(rcode.rcode());
        let counts = section.counts_mut();
        counts.set_qdcount(1);
        counts.set_ancount(records.answers);
        counts.set_nscount(records.authorities);
        counts.set_arcount(records.additionals + u16::from(opt.is_some()));
        out.put(section.as_slice());
        out.put(question);
        out.put(records.bytes);
        out.put(records.additional);
        out.put(opt.as_ref().map_or(&[], |opt| opt));
        Ok(())
    }

    fn encode_request(
        &self,
        id: u64,
        query: Query<'_>,
        out: &mut Writer<'_>,
    ) -> Result<(), DnsError> {
        let mut section = HeaderSection::new();
        *section.header_mut() = query.header;
        #[expect(clippy::cast_possible_truncation, reason = "an id has 16 bits")]
        section.header_mut().set_id(id as u16);
        section.header_mut().set_qr(false);
        section.counts_mut().set_qdcount(1);
        section
            .counts_mut()
            .set_arcount(query.edns.is_some().into());
        out.put(section.as_slice());
        out.put(query.name);
        out.put(&query.rtype.to_int().to_be_bytes());
        out.put(&query.class.to_int().to_be_bytes());
        if let Some(edns) = query.edns {
            out.put(&opt(OptRcode::NOERROR, edns.dnssec_ok));
        }
        Ok(())
    }

    fn decode_response<'a>(&self, datagram: &'a [u8]) -> Result<Message<&'a [u8]>, DnsError> {
        let message = Message::from_octets(datagram).map_err(|_| DnsError::Short)?;
        if !message.header().qr() {
            return Err(DnsError::Direction);
        }
        let (.., mut additional) = message.sections()?;
        for record in &mut additional {
            record?;
        }
        if additional.pos() != datagram.len() {
            return Err(DnsError::Trailing);
        }
        Ok(message)
    }

    fn is_response(&self, datagram: &[u8]) -> bool {
        datagram.get(2).is_some_and(|flags| flags & 0x80 != 0)
    }

    /// A header. It has NOTIMP for another operation than a query (RFC 8906 §3.1.4), and otherwise FORMERR: the
    /// server cannot interpret the query (RFC 1035 §4.1.1, RFC 6891 §7, RFC 9619 §4). A datagram without a whole
    /// header, and a response, get nothing.
    fn encode_rejection(&self, datagram: &[u8], _: &DnsError, out: &mut Writer<'_>) {
        let Ok(message) = Message::from_octets(datagram) else {
            return;
        };
        if message.header().qr() {
            return;
        }
        let rcode = if message.header().opcode() == Opcode::QUERY {
            Rcode::FORMERR
        } else {
            Rcode::NOTIMP
        };
        let mut section = HeaderSection::new();
        let header = section.header_mut();
        header.set_id(message.header().id());
        header.set_qr(true);
        header.set_opcode(message.header().opcode());
        header.set_rd(message.header().rd());
        header.set_rcode(rcode);
        out.put(section.as_slice());
    }

    fn correlation(&self) -> Correlation {
        Correlation::Id { bits: 16 }
    }

    fn response_id(&self, response: &[u8]) -> Option<u64> {
        response
            .first_chunk()
            .map(|id| u16::from_be_bytes(*id).into())
    }

    /// RFC 5452 §9.1: the question must be the same. Its case may have been changed on the way.
    fn response_matches(&self, request: &[u8], response: &[u8]) -> bool {
        let Ok(query) = self.decode_request(request) else {
            return false;
        };
        let question = HEADER_BYTES..HEADER_BYTES + query.name.len() + 4;
        request[4..6] == response[4..6]
            && response
                .get(question.clone())
                .is_some_and(|echoed| echoed.eq_ignore_ascii_case(&request[question]))
    }
}

impl rejoinder::IntoReply<Dns> for Answer<'_> {
    fn reply(self, reply: &mut rejoinder::Reply<'_, Dns>) -> Result<(), rejoinder::ReplyError> {
        reply.send(self)
    }
}

/// What the OPT record says, if there is one. All other records are well-formed, and nothing follows
/// them.
fn edns(message: Message<&[u8]>) -> Result<Option<Edns>, DnsError> {
    let mut edns = None;
    let mut is_signed = false;
    let mut section = message.answer()?;
    let mut following = 2;
    loop {
        for record in &mut section {
            let record = record?;
            // RFC 8945 §5.1: TSIG is the last record.
            if is_signed {
                return Err(DnsError::Misplaced);
            }
            if record.rtype() != Rtype::OPT {
                is_signed = record.rtype() == Rtype::TSIG;
                record.to_any_record::<AllRecordData<_, ParsedName<_>>>()?;
                continue;
            }
            // RFC 6891 §6.1.1 and §6.1.2.
            if following != 0 || record.owner().compose_len() != 1 {
                return Err(DnsError::Misplaced);
            }
            let Some(opt) = record.into_record::<Opt<_>>()? else {
                continue;
            };
            let opt = OptRecord::from(opt);
            let one = Edns {
                udp_bytes: opt.udp_payload_size(),
                version: opt.version(),
                dnssec_ok: opt.dnssec_ok(),
            };
            if edns.replace(one).is_some() {
                return Err(DnsError::Opts);
            }
        }
        match section.next_section()? {
            Some(next) => section = next,
            None => break,
        }
        following -= 1;
    }
    if section.pos() == message.as_slice().len() {
        Ok(edns)
    } else {
        Err(DnsError::Trailing)
    }
}

/// An OPT record without options (RFC 6891 §6.1.2).
fn opt(rcode: OptRcode, dnssec_ok: bool) -> [u8; 11] {
    let [size_high, size_low] = MAX_BYTES.to_be_bytes();
    let [_, rtype] = Rtype::OPT.to_int().to_be_bytes();
    let flags = u8::from(dnssec_ok) << 7;
    [
        0,
        0,
        rtype,
        size_high,
        size_low,
        rcode.ext(),
        0,
        flags,
        0,
        0,
        0,
    ]
}

const HEADER_BYTES: usize = 12;
