//! A handler that is replaced while the server runs: no request is lost, and each is handled by one
//! robot from its beginning to its end.
//!
//! ```text
//! cargo run --example hot_swap
//! ```

use std::error::Error;
use std::sync::{Arc, PoisonError, RwLock};
use std::thread;

use rejoinder::bot::Robot;
use rejoinder::codec::Text;
use rejoinder::{Client, Context, Handler, Reply, ReplyError, Server};

/// Clones share the robot.
#[derive(Clone)]
struct Swap(Arc<RwLock<Arc<Robot>>>);

impl Swap {
    fn replace(&self, robot: Robot) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(robot);
    }
}

impl Handler<Text> for Swap {
    fn handle(
        &self,
        request: &str,
        _: &Context,
        reply: &mut Reply<'_, Text>,
    ) -> Result<(), ReplyError> {
        // The lock is held for as long as it takes to clone a pointer.
        let robot = Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner));
        reply.send(&robot.answer(request))
    }
}

fn robot(greeting: &str) -> Result<Robot, Box<dyn Error>> {
    let template = format!("{greeting}, {{1}}!");
    Ok(Robot::builder().rule("I am (.+)", template).build()?)
}

fn main() -> Result<(), Box<dyn Error>> {
    let swap = Swap(Arc::new(RwLock::new(Arc::new(robot("Hello")?))));
    let server = Server::bind("127.0.0.1:0", Text)?;
    let (addr, handle) = (server.local_addr()?, server.handle());
    let serving = swap.clone();
    let serving = thread::spawn(move || server.serve(serving));

    let mut client = Client::connect(addr, Text)?;
    println!("{}", client.request("I am Ming")?);
    swap.replace(robot("Welcome back")?);
    println!("{}", client.request("I am Ming")?);

    handle.shutdown();
    if let Ok(stats) = serving.join() {
        println!("{}", stats?);
    }
    Ok(())
}
