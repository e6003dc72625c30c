//! Requests of clients.

use tiebreaker_member::{
    Client, Identity, Incoming, LinkError, MAX_REQUEST, PeerId, Reply, Requester, Role, TimeFloor, Timing,
};

use crate::world::{Clock, Member, NOW, PATIENCE, World, issue, name, soon};

async fn connect(member: &Member, identity: &Identity) -> Result<Client, LinkError> {
    let time = Clock::at(NOW).time(&TimeFloor::default());
    Client::connect(&[member.addr.into()], None, identity, &time, PATIENCE).await
}

async fn next_request(member: &mut Member) -> (Requester, Vec<u8>, Reply) {
    loop {
        if let Incoming::Request { from, bytes, reply } = soon("a request", member.rx.recv()).await.unwrap() {
            return (from, bytes, reply);
        }
    }
}

#[tokio::test]
async fn a_request_is_answered_in_parts_and_the_connection_serves_the_next() {
    let mut world = World::new(Timing::default()).await;
    let ann = issue(&world.ca, "home", Role::Operator, "ann");
    let mut client = connect(&world.n1, &ann).await.unwrap();
    let large = vec![7; 300 << 10];
    let answer = async {
        let (from, bytes, reply) = next_request(&mut world.n1).await;
        let id = PeerId { cluster: "home".parse().unwrap(), role: Role::Operator, name: name("ann") };
        assert_eq!(from, Requester::Certified(id));
        assert_eq!(bytes, large);
        reply.part(b"one".to_vec()).await.unwrap();
        reply.part(bytes).await.unwrap();
        reply.part(Vec::new()).await.unwrap();
        reply.end().await.unwrap();
        let (_, bytes, reply) = next_request(&mut world.n1).await;
        reply.only(bytes).await.unwrap();
        let (_, _, reply) = next_request(&mut world.n1).await;
        reply.fail("no such resource".to_owned()).await.unwrap();
        let (_, _, reply) = next_request(&mut world.n1).await;
        drop(reply);
    };
    let ask = async {
        let mut parts = client.request(&large).await.unwrap();
        assert_eq!(parts.next().await.unwrap(), Some(b"one".to_vec()));
        assert_eq!(parts.next().await.unwrap().as_ref(), Some(&large));
        assert_eq!(parts.next().await.unwrap(), Some(Vec::new()));
        assert_eq!(parts.next().await.unwrap(), None);
        assert_eq!(parts.next().await.unwrap(), None);
        assert_eq!(client.ask(b"again", PATIENCE).await.unwrap(), b"again");
        let error = client.ask(b"bad", PATIENCE).await.unwrap_err();
        assert_eq!(error.to_string(), "no such resource");
        let error = client.ask(b"ignored", PATIENCE).await.unwrap_err();
        assert!(error.to_string().contains("gave no answer"), "{error}");
    };
    tokio::join!(answer, ask);
    let error = client.request(&vec![0; MAX_REQUEST + 1]).await.unwrap_err();
    assert!(matches!(error, LinkError::TooLarge { .. }));
}

#[tokio::test]
async fn a_reply_that_was_not_read_to_its_end_is_not_mixed_with_the_next() {
    let mut world = World::new(Timing::default()).await;
    let ann = issue(&world.ca, "home", Role::Operator, "ann");
    let mut client = connect(&world.n1, &ann).await.unwrap();
    client.request(b"watch").await.unwrap();
    let (_, _, reply) = next_request(&mut world.n1).await;
    reply.part(b"one".to_vec()).await.unwrap();
    assert!(matches!(client.request(b"next").await.unwrap_err(), LinkError::Unfinished));
}

#[tokio::test]
async fn who_answers_learns_that_the_client_has_gone() {
    let mut world = World::new(Timing::default()).await;
    let ann = issue(&world.ca, "home", Role::Operator, "ann");
    let mut client = connect(&world.n1, &ann).await.unwrap();
    client.request(b"watch").await.unwrap();
    let (_, _, reply) = next_request(&mut world.n1).await;
    drop(client);
    soon("the client's end", reply.closed()).await;
}

#[tokio::test]
async fn a_removed_operator_is_cut_off_in_mid_reply() {
    let mut world = World::new(Timing::default()).await;
    let ann = issue(&world.ca, "home", Role::Operator, "ann");
    let mut client = connect(&world.n1, &ann).await.unwrap();
    let mut parts = client.request(b"watch").await.unwrap();
    let (_, _, reply) = next_request(&mut world.n1).await;
    reply.part(b"one".to_vec()).await.unwrap();
    assert_eq!(parts.next().await.unwrap(), Some(b"one".to_vec()));
    world.n1.change(|table| table.roster.remove_serial(ann.cert().serial));
    soon("the cut", reply.closed()).await;
    assert!(parts.next().await.is_err());
    // TLS 1.3 lets a client finish before the server has judged it, so the refusal comes with the greeting's answer.
    let error = connect(&world.n1, &ann).await.unwrap_err();
    assert!(error.to_string().contains("was removed from the cluster"), "{error}");
}

#[tokio::test]
async fn the_first_of_several_members_that_answers_is_asked() {
    let world = World::new(Timing::default()).await;
    let ann = issue(&world.ca, "home", Role::Operator, "ann");
    let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let time = Clock::at(0).time(&TimeFloor::default());
    let client = Client::connect(&[closed.into(), world.n2.addr.into()], None, &ann, &time, PATIENCE).await.unwrap();
    assert_eq!(client.at(), world.n2.addr.to_string());
    let error = Client::connect(&[], None, &ann, &time, PATIENCE).await.unwrap_err();
    assert!(matches!(error, LinkError::NoAddress { .. }), "{error}");
}
