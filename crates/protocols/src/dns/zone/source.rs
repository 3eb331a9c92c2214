//! The records of a master file, checked to be those of one zone.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;

use domain::base::iana::{Class, Rtype};
use domain::base::name::FlattenInto;
use domain::base::rdata::{ComposeRecordData, ParseRecordData, UnknownRecordData};
use domain::base::{Name, ParsedName, Record, ToName};
use domain::dep::octseq::Parser;
use domain::rdata::ZoneRecordData;
use domain::zonefile::inplace::{Entry, Zonefile};

use crate::dns::master_file::entries;
use crate::dns::whoami::is_whoami;

pub(super) type CanonicalName = Name<Vec<u8>>;
pub(super) type ZoneRecord = Record<Name<Vec<u8>>, ZoneRecordData<Vec<u8>, Name<Vec<u8>>>>;

/// A zone, parsed from its file.
pub(super) struct Source {
    pub(super) apex: CanonicalName,
    pub(super) names: BTreeMap<CanonicalName, BTreeMap<Rtype, Vec<ZoneRecord>>>,
    /// The SOA record, as it stands in negative answers.
    pub(super) negative: ZoneRecord,
    pub(super) warnings: Vec<String>,
}

impl Source {
    pub(super) fn parse(master_file: &[u8]) -> Result<Self, Box<dyn Error>> {
        let mut names: BTreeMap<CanonicalName, BTreeMap<Rtype, Vec<ZoneRecord>>> = BTreeMap::new();
        let mut soa: Option<ZoneRecord> = None;
        let mut warnings = Vec::new();
        let mut mixed = BTreeSet::new();
        let mut parser = Zonefile::new();
        parser.set_default_class(Class::IN);
        let byte_order_mark = "\u{feff}".as_bytes();
        let file = master_file
            .strip_prefix(byte_order_mark)
            .unwrap_or(master_file);
        for line in entries(file)? {
            let number = line.number;
            let problem = |problem: &str| format!("line {number}: {problem}");
            // One by one: the parser's own number is that of the line behind the mistake.
            parser.extend_from_slice(line.text.as_bytes());
            while let Some(entry) = parser
                .next_entry()
                .map_err(|error| problem(in_our_words(&error.to_string())))?
            {
                let Entry::Record(record) = entry else {
                    return Err(problem("$INCLUDE is not supported").into());
                };
                let record: ZoneRecord = record.try_flatten_into()?;
                let record = with_own_data(record, line.rtype)
                    .map_err(|error| problem(&error.to_string()))?;
                let set = (canonical(record.owner()), record.rtype());
                let ttls = add(record, &mut names, &mut soa).map_err(|error| problem(&error))?;
                if let Some([one, other]) = ttls
                    && mixed.insert(set.clone())
                {
                    warnings.push(problem(&format!(
                        "{} {}: TTLs of {one} and {other}, of which the whole set gets the lowest",
                        set.0, set.1
                    )));
                }
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
            warnings,
        })
    }
}

/// Adds a record to those of its name and type. Returns the TTLs, if it has another than those.
fn add(
    record: ZoneRecord,
    names: &mut BTreeMap<CanonicalName, BTreeMap<Rtype, Vec<ZoneRecord>>>,
    soa: &mut Option<ZoneRecord>,
) -> Result<Option<[u32; 2]>, String> {
    if record.class() != Class::IN {
        return Err(format!("{}: not of class IN", record.owner()));
    }
    if let Rtype::DNSKEY | Rtype::RRSIG | Rtype::NSEC | Rtype::NSEC3 | Rtype::NSEC3PARAM =
        record.rtype()
    {
        return Err(format!("{}: DNSSEC is not supported", record.owner()));
    }
    // RFC 6895 §3.1: types of questions, and of records that no zone has.
    if let 0 | 41 | 128..=255 = record.rtype().to_int() {
        return Err(format!(
            "{}: no record of a zone has the type {}",
            record.owner(),
            record.rtype()
        ));
    }
    if record.rtype() == Rtype::SOA && soa.replace(record.clone()).is_some() {
        return Err(format!("{}: a second SOA record", record.owner()));
    }
    let rrsets = names.entry(canonical(record.owner())).or_default();
    let rrset = rrsets.entry(record.rtype()).or_default();
    let (ttl, before) = (record.ttl(), rrset.first().map(ZoneRecord::ttl));
    if !rrset.contains(&record) {
        rrset.push(record);
    }
    let Some(before) = before.filter(|before| *before != ttl) else {
        return Ok(None);
    };
    // RFC 2181 §5.2.
    for record in rrset {
        record.set_ttl(ttl.min(before));
    }
    Ok(Some([before.as_secs(), ttl.as_secs()]))
}

/// The record as its type demands. One that was read in the form of another type gets its own type. Data of a known
/// type that are written in the form of RFC 3597 §5 become what they are in the type's own form.
fn with_own_data(record: ZoneRecord, rtype: Option<Rtype>) -> Result<ZoneRecord, Box<dyn Error>> {
    let data = match (rtype, record.data()) {
        (Some(rtype), data) => {
            let mut bytes = Vec::new();
            data.compose_rdata(&mut bytes)?;
            ZoneRecordData::Unknown(UnknownRecordData::from_octets(rtype, bytes)?)
        }
        (None, ZoneRecordData::Unknown(unknown)) => {
            let mut parser = Parser::from_ref(unknown.data().as_slice());
            let data: Option<ZoneRecordData<&[u8], ParsedName<&[u8]>>> =
                ZoneRecordData::parse_rdata(unknown.rtype(), &mut parser)?;
            let data: ZoneRecordData<_, _> = data.ok_or("no data")?.try_flatten_into()?;
            let mut same = Vec::new();
            data.compose_rdata(&mut same)?;
            if same != *unknown.data() {
                return Err("data that are too long, or have a compressed name".into());
            }
            data
        }
        (None, _) => return Ok(record),
    };
    let (owner, class, ttl) = (record.owner().clone(), record.class(), record.ttl());
    Ok(Record::new(owner, class, ttl, data))
}

/// A message of the parser without the line and column in front of it, and with what to do.
fn in_our_words(message: &str) -> &str {
    match message.splitn(3, ':').nth(2).map_or(message, str::trim) {
        "missing origin" => {
            "a relative name without an origin: begin the file with `$ORIGIN`, the zone's name and a dot"
        }
        "bad charstr" => "a string of more than 255 bytes: write it as several strings",
        "unknown record type with concrete data" => {
            "the text form of this type is not known: write the data as `\\# LENGTH HEXDIGITS` (RFC 3597)"
        }
        other => other,
    }
}

pub(super) fn canonical(name: &impl ToName) -> CanonicalName {
    name.to_canonical_name()
}
