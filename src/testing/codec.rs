use std::time::{Duration, SystemTime};

use super::{Kept, catch_panic, mutations, require};
use crate::codec::{Codec, Correlation, Writer};
use crate::timestamp::Timestamp;

/// Checks what [`Codec`] says of every codec, on datagrams that are made from samples.
///
/// `requests` are whole datagrams, of any kind that the codec has; each must decode. `respond`
/// encodes a response to such a request with [`Codec::encode_response`], with whatever answer.
///
/// The requirements, by the names that the error gives:
///
/// - "decoding never panics": nor does any other question about any bytes whatever.
/// - "a sample is a request": it decodes, encodes, and is no response.
/// - "what decodes encodes to the same bytes": but for the id, where there is one, and for what
///   the codec refuses to encode.
/// - "a response is a response": either every encoded response is one, or none is (the codec does
///   not mark responses).
/// - "a response decodes".
/// - "ids have 1 to 64 bits": as [`Codec::correlation`] says. No client is made for other codecs.
/// - "a response repeats the id of its request", "a response answers its request", and
///   "`response_id` reads no request": where requests have ids.
/// - "what does not fit is too long": an encoder says so, and does not write half.
/// - "a stamp leaves the request as it is": [`Codec::stamp_request`] changes neither what a request
///   decodes to, nor its id, nor its [key](Codec::request_key).
/// - "a response is authentic": to whichever transmission of its request.
///
/// Whether a sample is [authentic](Codec::authenticate) is not asked, since that depends on the time.
///
/// ```
/// use rejoinder::testing::codec_conformance;
/// use rejoinder::codec::{Tagged, Text};
/// use rejoinder::{Codec, Timestamp};
///
/// let codec = Tagged(Text);
/// codec_conformance(&codec, &[b"?\0\0\0\0\0\0\0\x07question"], |request, out| {
///     codec.encode_response(Timestamp::system(), request, &"answer", out)
/// })?;
/// # Ok::<(), rejoinder::testing::Violation>(())
/// ```
pub fn codec_conformance<C: Codec>(
    codec: &C,
    requests: &[&[u8]],
    respond: impl Fn(&[u8], &mut Writer<'_>) -> Result<(), C::Error>,
) -> Kept {
    let encode = |write: &dyn Fn(&mut Writer<'_>) -> Result<(), C::Error>| {
        let mut space = vec![0; 65_507];
        let mut out = Writer::new(&mut space);
        write(&mut out).ok()?;
        let len = out.finish().ok()?;
        space.truncate(len);
        Some(space)
    };
    let again = |id: u64, bytes: &[u8]| {
        encode(&|out| match codec.decode_request(bytes) {
            Ok(request) => codec.encode_request(id, request, out),
            Err(_) => Ok(()),
        })
    };

    let mut responses = Vec::new();
    for &request in requests {
        require(
            "a sample is a request",
            codec.decode_request(request).is_ok()
                && !codec.is_response(request)
                && again(0, request).is_some(),
            || format!("{request:02x?} is none"),
        )?;
        let response = encode(&|out| respond(request, out));
        let Some(response) = response else {
            return require("a response decodes", false, || {
                format!("the response to {request:02x?} could not be encoded")
            });
        };
        require(
            "a response decodes",
            codec.decode_response(&response).is_ok(),
            || format!("{response:02x?} does not"),
        )?;
        ids(codec, request, again, |request| {
            encode(&|out| respond(request, out))
        })?;
        stamps(codec, request, &response, |request| {
            again(0, request).unwrap_or_default()
        })?;
        tells_too_long(request, &response, &respond)?;
        responses.push(response);
    }
    let told = responses.iter().filter(|bytes| codec.is_response(bytes));
    let told = told.count();
    require(
        "a response is a response",
        told == 0 || told == responses.len(),
        || format!("{told} of {} are", responses.len()),
    )?;

    let samples: Vec<_> = requests
        .iter()
        .copied()
        .chain(responses.iter().map(Vec::as_slice))
        .collect();
    for bytes in mutations(&samples) {
        let (is_request, is_response) = catch_panic(
            "decoding never panics",
            || {
                let _ = codec.decode_response(&bytes).is_ok();
                let _ = codec.authenticate(EPOCH, &bytes).is_ok();
                let _ = codec.request_key(&bytes);
                codec.stamp_request(EPOCH, &mut bytes.clone());
                let _ = requests.iter().any(|request| {
                    codec.is_authentic_response(request, &bytes)
                        || codec.is_authentic_response(&bytes, request)
                });
                let _ = codec.response_id(&bytes);
                let _ = requests
                    .iter()
                    .any(|request| codec.response_matches(request, &bytes));
                (
                    codec.decode_request(&bytes).is_ok(),
                    codec.is_response(&bytes),
                )
            },
            &bytes,
        )?;
        if is_request && !is_response {
            // The id in the bytes is not known, so they are compared with ids of our own.
            let once = again(1, &bytes);
            let kept = match codec.correlation() {
                Correlation::Socket => once.as_deref() == Some(&bytes[..]),
                Correlation::Id { .. } => once == once.as_deref().and_then(|once| again(1, once)),
            };
            // A client may refuse to send what a server would not answer.
            require(
                "what decodes encodes to the same bytes",
                kept || once.is_none(),
                || format!("{bytes:02x?} becomes {once:02x?}"),
            )?;
        }
    }
    Ok(())
}

fn ids<C: Codec>(
    codec: &C,
    request: &[u8],
    again: impl Fn(u64, &[u8]) -> Option<Vec<u8>>,
    respond: impl Fn(&[u8]) -> Option<Vec<u8>>,
) -> Kept {
    let Correlation::Id { bits } = codec.correlation() else {
        return Ok(());
    };
    require("ids have 1 to 64 bits", (1..=64).contains(&bits), || {
        format!("they have {bits}")
    })?;
    let highest = u64::MAX >> (64 - bits);
    let mut earlier: Option<Vec<u8>> = None;
    for id in [0, 1, highest / 3, highest] {
        let asked = again(id, request).unwrap_or_default();
        let response = respond(&asked).unwrap_or_default();
        let found = codec.response_id(&response);
        require(
            "a response repeats the id of its request",
            found == Some(id),
            || format!("{found:?}, not {id}, in the response {response:02x?} to {asked:02x?}"),
        )?;
        let found = codec.response_id(&asked);
        require("`response_id` reads no request", found.is_none(), || {
            format!("it finds {found:?} in the request {asked:02x?}")
        })?;
        require(
            "a response answers its request",
            codec.response_matches(&asked, &response),
            || format!("{response:02x?} does not answer {asked:02x?}"),
        )?;
        let distinct = earlier.is_none_or(|earlier| earlier != asked);
        require("a response repeats the id of its request", distinct, || {
            format!("two ids give the same request {asked:02x?}")
        })?;
        earlier = Some(asked);
    }
    Ok(())
}

fn stamps<C: Codec>(
    codec: &C,
    request: &[u8],
    response: &[u8],
    content: impl Fn(&[u8]) -> Vec<u8>,
) -> Kept {
    let mut stamped = request.to_vec();
    for seconds in [0, 1, 1_000_000_000] {
        let time = Duration::from_secs(seconds);
        let now = Timestamp::new(time, SystemTime::UNIX_EPOCH + time);
        codec.stamp_request(now, &mut stamped);
        let is_same = codec.decode_request(&stamped).is_ok()
            && content(&stamped) == content(request)
            && !codec.is_response(&stamped)
            && codec.request_id(&stamped) == codec.request_id(request)
            && codec.request_key(&stamped) == codec.request_key(request);
        require("a stamp leaves the request as it is", is_same, || {
            format!("{request:02x?} becomes {stamped:02x?}")
        })?;
        let is_authentic = codec.is_authentic_response(&stamped, response);
        require("a response is authentic", is_authentic, || {
            format!("{response:02x?} does not prove to answer {stamped:02x?}")
        })?;
    }
    Ok(())
}

fn tells_too_long<E>(
    request: &[u8],
    response: &[u8],
    respond: impl Fn(&[u8], &mut Writer<'_>) -> Result<(), E>,
) -> Kept {
    for limit in 0..response.len() {
        let mut space = vec![0; limit];
        let mut out = Writer::new(&mut space);
        let result = respond(request, &mut out);
        // An encoder may notice by itself, or leave it to the writer.
        require(
            "what does not fit is too long",
            result.is_err() || out.finish().is_err(),
            || format!("{} bytes fit into {limit}", response.len()),
        )?;
    }
    Ok(())
}

const EPOCH: Timestamp = Timestamp::new(Duration::ZERO, SystemTime::UNIX_EPOCH);
