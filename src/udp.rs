//! UDP: many datagrams per system call on Linux, one elsewhere.

#[cfg(target_os = "linux")]
mod batch_size;
mod blocking;
mod buffers;
#[cfg(target_os = "linux")]
mod cmsg;
mod connector;
#[cfg(target_os = "linux")]
mod drops;
mod fallback;
mod family;
mod features;
#[cfg(target_os = "linux")]
mod gso;
#[cfg(target_os = "linux")]
mod kernel;
#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "linux")]
mod linux_options;
mod open;
mod options;
#[cfg(target_os = "linux")]
mod send_trains;
#[cfg(target_os = "linux")]
mod sockaddr;
mod socket_options;
#[cfg(target_os = "linux")]
mod syscall;
mod transport;

pub use self::connector::UdpConnector;
#[cfg(feature = "testing")]
pub use self::features::UdpFeature;
pub use self::features::UdpFeatures;
pub use self::options::UdpOptions;
pub use self::transport::UdpTransport;

#[cfg(all(test, target_os = "linux"))]
mod tests;
