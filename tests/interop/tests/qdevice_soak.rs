//! Thousands of QDevice clients that come and go at random don't add up: our daemon's memory after three rounds is
//! compared with what the clients of one took. `tests/bench/qnetd --soak` does the same with more of them, and is stricter.
#![allow(clippy::unwrap_used)]

use std::net::{Ipv4Addr, SocketAddr};

use tiebreaker_interop::{Appliance, Soak, loopback};

/// Enough to stand out from the pages which an allocator keeps.
const CLIENTS: usize = 1000;

#[test]
fn clients_that_come_and_go_do_not_add_up() {
    let folder = tempfile::tempdir().unwrap();
    let place = loopback();
    let server = SocketAddr::new(place.ip(), 5403);
    let mut appliance = Appliance::init(folder.path(), place, vec![]).unwrap();
    let name = |number: usize| format!("soak-{number}");
    let mut config = format!("\n[qdevice]\nlisten = [\"{server}\"]\n");
    for number in 0..CLIENTS / 2 {
        config.push_str(&format!("[qdevice.clusters.{}]\nplain_text = true\n", name(number)));
    }
    appliance.configure(&config).unwrap();
    appliance.start().unwrap();
    let soak = Soak { server, pid: appliance.pid().unwrap(), clients: CLIENTS, rounds: 3, seed: 7 };
    // Servers bound how many come from one address.
    let source = |number: usize| Ipv4Addr::new(127, 1, 1, u8::try_from(number / 100 + 1).unwrap());
    let soaked = soak.run(name, source, |_| {}).unwrap();
    assert!(soaked.bounded(), "{soaked}");
    println!("{soaked}");
}
