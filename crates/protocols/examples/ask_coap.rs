//! Posts a text to 小Zurich over `CoAP`, with the codec of `coap`:
//!
//! ```text
//! cargo run -p rejoinder-protocols --example ask_coap -- 127.0.0.1:5683 你好吗？
//! ```

use std::error::Error;
use std::io::{self, Write};

use coap_lite::{CoapOption, MessageClass, Packet, RequestType};
use rejoinder::Client;
use rejoinder::escape::Escaped;
use rejoinder_protocols::coap::codec::Coap;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [server, text] = arguments.as_slice() else {
        return Err("usage: ask_coap HOST:PORT TEXT".into());
    };
    let mut request = Packet::new();
    request.header.code = MessageClass::Request(RequestType::Post);
    request.add_option(CoapOption::UriPath, b"zurich".to_vec());
    request.payload = text.as_bytes().to_vec();
    let mut client = Client::connect(server, Coap)?;
    let answer = client.request(request)?;
    let text = String::from_utf8_lossy(&answer.payload);
    writeln!(
        io::stdout(),
        "{} {}",
        answer.header.get_code(),
        Escaped(&text)
    )?;
    Ok(())
}
