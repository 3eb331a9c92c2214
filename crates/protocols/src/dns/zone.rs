//! A zone: every answer that it can give, made in advance.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::error::Error;

use domain::base::iana::{Class, OptRcode, Rtype};
use domain::base::message_builder::{MessageBuilder, StaticCompressor};
use domain::base::name::FlattenInto;
use domain::base::wire::Composer;
use domain::base::{Name, Record, ToName};
use domain::rdata::ZoneRecordData;
use domain::zonefile::inplace::{Entry, Zonefile};

use super::codec::Records;
use super::master_file::entries;
use super::whoami::is_whoami;

/// The answers of one zone.
#[derive(Debug)]
pub struct Zone {
    /// In lower case and on the wire's form, like all names here.
    apex: Box<[u8]>,
    /// Names with records, and those between them and the apex.
    names: HashMap<Box<[u8]>, Node>,
    no_such_name: Stored,
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
    pub fn parse(master_file: &[u8]) -> Result<Self, Box<dyn Error>> {
        let source = Source::parse(master_file)?;
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
            no_such_name: Stored::make(
                Vec::new(),
                OptRcode::NXDOMAIN,
                None,
                [&[], &[&source.negative], &[]],
            )?,
        })
    }

    /// What the zone says of a name, in whatever case. If that is not in it, the zone refuses to say
    /// anything.
    pub fn answer(&self, name: &[u8], rtype: Rtype) -> (OptRcode, Option<Records<'_>>) {
        let mut space = [0; 255];
        let name = space.get_mut(..name.len()).map(|lower| {
            lower.copy_from_slice(name);
            // A label's length is below 64, so it is no letter.
            lower.make_ascii_lowercase();
            &*lower
        });
        match name.and_then(|name| self.find(name, rtype)) {
            Some(stored) => (stored.rcode, Some(stored.records())),
            None => (OptRcode::REFUSED, None),
        }
    }

    fn find(&self, name: &[u8], rtype: Rtype) -> Option<&Stored> {
        if let Some(node) = self.names.get(name) {
            let found = node.by_type.iter().find(|(one, _)| *one == rtype);
            return Some(found.map_or(&node.other_types, |(_, stored)| stored));
        }
        let mut rest = name;
        while rest.len() > self.apex.len() {
            rest = rest.get(1 + usize::from(rest[0])..)?;
        }
        (*rest == *self.apex).then_some(&self.no_such_name)
    }
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

type CanonicalName = Name<Vec<u8>>;
type ZoneRecord = Record<Name<Vec<u8>>, ZoneRecordData<Vec<u8>, Name<Vec<u8>>>>;

/// A zone, parsed from its file.
struct Source {
    apex: CanonicalName,
    names: BTreeMap<CanonicalName, BTreeMap<Rtype, Vec<ZoneRecord>>>,
    /// The SOA record, as it stands in negative answers.
    negative: ZoneRecord,
}

impl Source {
    fn parse(master_file: &[u8]) -> Result<Self, Box<dyn Error>> {
        let mut names: BTreeMap<CanonicalName, BTreeMap<Rtype, Vec<ZoneRecord>>> = BTreeMap::new();
        let mut soa: Option<ZoneRecord> = None;
        let text = str::from_utf8(master_file)?;
        let mut parser = Zonefile::new();
        parser.set_default_class(Class::IN);
        for (line, entry) in entries(text.strip_prefix('\u{feff}').unwrap_or(text))? {
            let problem = |problem: &str| format!("line {line}: {problem}");
            // One by one: the parser's own number is that of the line behind the mistake.
            parser.extend_from_slice(entry.as_bytes());
            while let Some(entry) = parser
                .next_entry()
                .map_err(|error| problem(without_place(&error.to_string())))?
            {
                let Entry::Record(record) = entry else {
                    return Err(problem("$INCLUDE is not supported").into());
                };
                let record: ZoneRecord = record.try_flatten_into()?;
                add(record, &mut names, &mut soa).map_err(|error| problem(&error))?;
            }
        }
        let mut negative = soa.ok_or("no SOA record")?;
        let apex = canonical(negative.owner());
        if !names[&apex].contains_key(&Rtype::NS) {
            return Err(format!("{apex}: no NS record beside the SOA record").into());
        }
        if let ZoneRecordData::Soa(soa) = negative.data() {
            // RFC 2308 §3.
            negative.set_ttl(soa.minimum().min(negative.ttl()));
        }

        let mut between = Vec::new();
        for (name, rrsets) in &names {
            let problem = if !name.ends_with(&apex) {
                "not in the zone"
            } else if is_whoami(name.as_slice()) {
                "a name of the asker, not of a zone"
            } else if name.first().is_wildcard() {
                "wildcards are not supported"
            } else if rrsets.contains_key(&Rtype::DNAME) {
                "DNAME is not supported"
            } else if *name != apex && rrsets.contains_key(&Rtype::NS) {
                "delegations are not supported"
            } else if rrsets
                .get(&Rtype::CNAME)
                .is_some_and(|set| set.len() + rrsets.len() > 2)
            {
                "CNAME stands beside other records"
            } else {
                let parents = name.iter_suffixes().take_while(|parent| *parent != apex);
                between.extend(parents.map(|parent| canonical(&parent)));
                continue;
            };
            return Err(format!("{name}: {problem}").into());
        }
        for name in between {
            names.entry(name).or_default();
        }
        Ok(Self {
            apex,
            names,
            negative,
        })
    }

    /// RFC 1034 §4.3.2, for a zone without delegations and wildcards.
    fn answer(&self, name: &CanonicalName, rtype: Rtype) -> Result<Stored, Box<dyn Error>> {
        let mut rcode = OptRcode::NOERROR;
        let mut answers: Vec<&ZoneRecord> = Vec::new();
        let mut authorities: Vec<&ZoneRecord> = Vec::new();
        let mut asked = name.clone();
        loop {
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

/// Adds a record to those of its name and type.
fn add(
    record: ZoneRecord,
    names: &mut BTreeMap<CanonicalName, BTreeMap<Rtype, Vec<ZoneRecord>>>,
    soa: &mut Option<ZoneRecord>,
) -> Result<(), String> {
    if record.class() != Class::IN {
        return Err(format!("{}: not of class IN", record.owner()));
    }
    if let Rtype::DNSKEY | Rtype::RRSIG | Rtype::NSEC | Rtype::NSEC3 | Rtype::NSEC3PARAM =
        record.rtype()
    {
        return Err(format!("{}: DNSSEC is not supported", record.owner()));
    }
    if record.rtype() == Rtype::SOA && soa.replace(record.clone()).is_some() {
        return Err(format!("{}: a second SOA record", record.owner()));
    }
    let rrsets = names.entry(canonical(record.owner())).or_default();
    let rrset = rrsets.entry(record.rtype()).or_default();
    if rrset.iter().any(|other| other.ttl() != record.ttl()) {
        return Err(format!("{}: one set, several TTLs", record.owner()));
    }
    if !rrset.contains(&record) {
        rrset.push(record);
    }
    Ok(())
}

/// A message of the parser without the line and column in front of it.
fn without_place(message: &str) -> &str {
    message.splitn(3, ':').nth(2).map_or(message, str::trim)
}

fn canonical(name: &impl ToName) -> CanonicalName {
    name.to_canonical_name()
}
