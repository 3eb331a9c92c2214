//! A zone: every answer that it can give, made in advance.

mod source;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::error::Error;

use domain::base::Ttl;
use domain::base::iana::{OptRcode, Rtype};
use domain::base::message_builder::{MessageBuilder, StaticCompressor};
use domain::base::wire::Composer;
use domain::rdata::ZoneRecordData;

use self::source::{CanonicalName, Source, ZoneRecord, canonical};
use super::codec::Records;
use super::whoami::is_whoami;

/// The answers of one zone.
#[derive(Debug)]
pub struct Zone {
    /// In lower case and on the wire's form, like all names here.
    apex: Box<[u8]>,
    /// Names with records, and those between them and the apex.
    names: HashMap<Box<[u8]>, Node>,
    no_such_name: Stored,
    /// An SOA record in the authority section: one that may be cached, and one that must not.
    no_data: [Stored; 2],
    warnings: Vec<String>,
}

/// Where a name is, as seen from a zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// It has records, or a name below it has.
    Exists,
    /// In the zone, which does not have it.
    Missing,
    /// Not in the zone.
    Outside,
}

#[derive(Debug)]
struct Node {
    by_type: Vec<(Rtype, Stored)>,
    other_types: Stored,
}

/// An answer. Its compressed names point to the question's, so it fits behind no other name.
#[derive(Debug)]
struct Stored {
    rcode: OptRcode,
    counts: [u16; 3],
    bytes: Box<[u8]>,
    /// Where the additional section begins.
    additional: usize,
}

impl Zone {
    /// The zone that ships.
    pub fn example() -> Result<Self, Box<dyn Error>> {
        Self::parse(include_bytes!("example.zone"))
    }

    /// Reads a master file (RFC 1035 §5) with one zone in it. What this server could not answer
    /// correctly is an error: delegations, wildcards, DNAME, DNSSEC, included files.
    ///
    /// The file has bytes: above ASCII, each stands for itself, also in comments. Records of a type whose text
    /// form is not known here can be written in the form of RFC 3597 §5.
    pub fn parse(master_file: &[u8]) -> Result<Self, Box<dyn Error>> {
        let source = Source::parse(master_file)?;
        let mut uncached = source.negative.clone();
        uncached.set_ttl(Ttl::ZERO);
        let denial =
            |rcode, soa: &ZoneRecord| Stored::make(Vec::new(), rcode, None, [&[], &[soa], &[]]);
        let mut names = HashMap::new();
        for (name, rrsets) in &source.names {
            // An alias has an answer for whatever its target can have.
            let types: BTreeSet<&Rtype> = if rrsets.contains_key(&Rtype::CNAME) {
                source.names.values().flat_map(BTreeMap::keys).collect()
            } else {
                rrsets.keys().collect()
            };
            let mut by_type = Vec::new();
            for rtype in types {
                by_type.push((*rtype, source.answer(name, *rtype)?));
            }
            if let Some(first) = rrsets.keys().next() {
                // RFC 8482 §4.1: one of the sets will do.
                by_type.push((Rtype::ANY, source.answer(name, *first)?));
            }
            let other_types = source.answer(name, Rtype::from_int(0))?;
            names.insert(
                name.as_slice().into(),
                Node {
                    by_type,
                    other_types,
                },
            );
        }
        Ok(Self {
            apex: source.apex.as_slice().into(),
            names,
            no_such_name: denial(OptRcode::NXDOMAIN, &source.negative)?,
            no_data: [
                denial(OptRcode::NOERROR, &source.negative)?,
                denial(OptRcode::NOERROR, &uncached)?,
            ],
            warnings: source.warnings,
        })
    }

    /// What is served otherwise than it is written, one line each.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// What the zone says of a name, in whatever case. If that is not in it, the zone refuses to say
    /// anything.
    pub fn answer(&self, name: &[u8], rtype: Rtype) -> (OptRcode, Option<Records<'_>>) {
        let mut space = [0; MAX_NAME_BYTES];
        let name = lower_case(name, &mut space);
        if let Some(node) = self.names.get(name) {
            let found = node.by_type.iter().find(|(one, _)| *one == rtype);
            let stored = found.map_or(&node.other_types, |(_, stored)| stored);
            (stored.rcode, Some(stored.records()))
        } else if self.place(name) == Place::Outside {
            (OptRcode::REFUSED, None)
        } else {
            (OptRcode::NXDOMAIN, Some(self.no_such_name.records()))
        }
    }

    /// Where a name is, in whatever case.
    pub(super) fn place(&self, name: &[u8]) -> Place {
        let mut space = [0; MAX_NAME_BYTES];
        let name = lower_case(name, &mut space);
        if self.names.contains_key(name) {
            return Place::Exists;
        }
        let mut rest = name;
        while rest.len() > self.apex.len() {
            match rest.get(1 + usize::from(rest[0])..) {
                Some(parent) => rest = parent,
                None => return Place::Outside,
            }
        }
        if *rest == *self.apex {
            Place::Missing
        } else {
            Place::Outside
        }
    }

    /// A denial: there are no records of the type. It must not be cached if it varies with the peer.
    pub(super) fn no_data(&self, varies: bool) -> Records<'_> {
        self.no_data[usize::from(varies)].records()
    }
}

/// A name in lower case; longer than any name, it is none.
fn lower_case<'a>(name: &[u8], space: &'a mut [u8; MAX_NAME_BYTES]) -> &'a [u8] {
    let Some(lower) = space.get_mut(..name.len()) else {
        return &[];
    };
    lower.copy_from_slice(name);
    // A label's length is below 64, so it is no letter.
    lower.make_ascii_lowercase();
    lower
}

impl Stored {
    /// Composes the three sections that follow a question, if it is known.
    fn make(
        target: impl Composer,
        rcode: OptRcode,
        question: Option<&CanonicalName>,
        [answers, authorities, additionals]: [&[&ZoneRecord]; 3],
    ) -> Result<Self, Box<dyn Error>> {
        let too_long = |_| "an answer is too long for any datagram";
        let mut message = MessageBuilder::from_target(target)
            .map_err(|_| "no room")?
            .question();
        if let Some(name) = question {
            // The type does not matter here.
            message.push((name, Rtype::A)).map_err(too_long)?;
        }
        let start = message.as_slice().len();
        let mut message = message.answer();
        for record in answers {
            message.push(record).map_err(too_long)?;
        }
        let mut message = message.authority();
        for record in authorities {
            message.push(record).map_err(too_long)?;
        }
        let additional = message.as_slice().len() - start;
        let mut message = message.additional();
        for record in additionals {
            message.push(record).map_err(too_long)?;
        }
        let counts = message.counts();
        Ok(Self {
            rcode,
            counts: [counts.ancount(), counts.nscount(), counts.arcount()],
            bytes: message.as_slice()[start..].into(),
            additional,
        })
    }

    fn records(&self) -> Records<'_> {
        let [answers, authorities, additionals] = self.counts;
        let (bytes, additional) = self.bytes.split_at(self.additional);
        Records {
            answers,
            authorities,
            additionals,
            bytes,
            additional,
        }
    }
}

impl Source {
    /// RFC 1034 §4.3.2, for a zone without delegations and wildcards.
    fn answer(&self, name: &CanonicalName, rtype: Rtype) -> Result<Stored, Box<dyn Error>> {
        let mut rcode = OptRcode::NOERROR;
        let mut answers: Vec<&ZoneRecord> = Vec::new();
        let mut authorities: Vec<&ZoneRecord> = Vec::new();
        let mut asked = name.clone();
        loop {
            // Its answer varies with the peer, so the peer has to ask for it.
            if is_whoami(asked.as_slice()) {
                break;
            }
            let Some(rrsets) = self.names.get(&asked) else {
                if asked.ends_with(&self.apex) {
                    rcode = OptRcode::NXDOMAIN;
                    authorities.push(&self.negative);
                }
                break;
            };
            if let Some(rrset) = rrsets.get(&rtype) {
                answers.extend(rrset);
                break;
            }
            let Some([alias]) = rrsets.get(&Rtype::CNAME).map(Vec::as_slice) else {
                authorities.push(&self.negative);
                break;
            };
            if answers.contains(&alias) {
                return Err(format!("{name}: the alias leads to itself").into());
            }
            answers.push(alias);
            if let ZoneRecordData::Cname(alias) = alias.data() {
                asked = canonical(alias.cname());
            }
        }
        let targets = answers.iter().filter_map(|record| match record.data() {
            ZoneRecordData::Ns(data) => Some(canonical(data.nsdname())),
            ZoneRecordData::Mx(data) => Some(canonical(data.exchange())),
            ZoneRecordData::Srv(data) => Some(canonical(data.target())),
            _ => None,
        });
        let targets: BTreeSet<CanonicalName> = targets.collect();
        let additionals: Vec<&ZoneRecord> = targets
            .iter()
            .filter_map(|target| self.names.get(target))
            .flat_map(|rrsets| [rrsets.get(&Rtype::A), rrsets.get(&Rtype::AAAA)])
            .flatten()
            .flatten()
            .collect();
        Stored::make(
            StaticCompressor::new(Vec::new()),
            rcode,
            Some(name),
            [&answers, &authorities, &additionals],
        )
    }
}

/// The longest name on the wire (RFC 1035 §2.3.4).
const MAX_NAME_BYTES: usize = 255;
