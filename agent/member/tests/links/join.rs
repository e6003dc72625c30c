//! Joining with a token.

use std::net::SocketAddr;

use tiebreaker_member::{
    Address, Ca, Client, DEFAULT_TOKEN_TTL, Frame, Identity, Incoming, JoinAsk, Joined, Keypair, LEAF_VALIDITY,
    LinkError, PeerId, Purpose, RefuseCode, Role, Subject, TimeFloor, Timing, Token, TokenBook, join, signing_time,
};
use tokio::io::AsyncWriteExt;

use crate::raw::Raw;
use crate::world::{Clock, Member, NOW, PATIENCE, issue, name, port, soon};

/// An appliance that answers joiners as the real one does.
struct Appliance {
    addr: SocketAddr,
    ca: Ca,
    member: Member,
    book: TokenBook,
    now: u64,
    _dir: tempfile::TempDir,
}

impl Appliance {
    async fn new() -> Self {
        let ca = Ca::new_in_memory().unwrap();
        let member = Member::start(&port().await, issue(&ca, "home", Role::Appliance, "pi"), Timing::default(), NOW);
        let dir = tempfile::tempdir().unwrap();
        let book = TokenBook::open(dir.path()).unwrap();
        Self { addr: member.addr, ca, member, book, now: NOW, _dir: dir }
    }

    fn token(&mut self, role: Role) -> Token {
        let ca = self.ca.certificate().fingerprint();
        let token = self.book.create(ca, &"home".parse().unwrap(), role, self.now, DEFAULT_TOKEN_TTL).unwrap();
        // As an operator would carry it.
        token.to_text().parse().unwrap()
    }

    async fn answer(&mut self) {
        let Some(Incoming::Join { request, reply, .. }) = self.member.rx.recv().await else { panic!("no join came") };
        let cluster = "home".parse().unwrap();
        match self.book.redeem(&cluster, &request.secret, &request.name, &request.csr, self.now) {
            Err(refusal) => reply.refuse(refusal.to_string()).unwrap(),
            Ok(redeemed) => {
                let peer = PeerId { cluster, role: redeemed.role, name: request.name };
                let subject = Subject { peer, raft_id: Some(4) };
                let now = signing_time(self.now, request.clock);
                let leaf = self.ca.sign(&request.csr, &subject, now, LEAF_VALIDITY).unwrap();
                assert_eq!(request.info, b"info");
                reply.accept(leaf.to_vec()).unwrap();
            }
        }
    }

    async fn join(&mut self, token: &Token, who: &str, key: &Keypair) -> Result<Joined, LinkError> {
        let addresses = [Address::from(self.addr)];
        let joining = join(&addresses, None, token, ask(who, key), PATIENCE);
        tokio::pin!(joining);
        loop {
            tokio::select! {
                result = &mut joining => return result,
                () = self.answer() => {}
            }
        }
    }
}

fn ask(who: &str, key: &Keypair) -> JoinAsk {
    JoinAsk { name: name(who), csr: key.csr().unwrap(), clock: NOW, info: b"info".to_vec() }
}

#[tokio::test]
async fn a_node_joins_and_is_who_the_appliance_says() {
    let mut appliance = Appliance::new().await;
    let token = appliance.token(Role::Node);
    let key = Keypair::generate().unwrap();
    let joined = appliance.join(&token, "n7", &key).await.unwrap();
    assert_eq!(&joined.ca, appliance.ca.certificate());
    let identity = Identity::new(key, &joined.reply, joined.ca).unwrap();
    assert_eq!(identity.peer().to_string(), "node 'n7' of cluster 'home'");
    assert_eq!(identity.cert().subject.raft_id, Some(4));
    let time = Clock::at(NOW).time(&TimeFloor::default());
    Client::connect(&[appliance.addr.into()], None, &identity, &time, PATIENCE).await.unwrap();
}

#[tokio::test]
async fn each_bad_token_gets_its_own_refusal() {
    let mut appliance = Appliance::new().await;
    let token = appliance.token(Role::Node);
    let key = Keypair::generate().unwrap();
    appliance.join(&token, "n7", &key).await.unwrap();
    let say = |result: Result<Joined, LinkError>| match result.unwrap_err() {
        LinkError::Failed { text } => text,
        other => panic!("{other}"),
    };
    let used = say(appliance.join(&token, "n8", &Keypair::generate().unwrap()).await);
    assert!(used.contains("already used by 'n7'"), "{used}");
    // A reply that got lost may be asked for again, with the same key.
    appliance.join(&token, "n7", &key).await.unwrap();

    let late = appliance.token(Role::Node);
    appliance.now += DEFAULT_TOKEN_TTL;
    let expired = say(appliance.join(&late, "n8", &key).await);
    assert!(expired.contains("expired") && expired.contains("token create"), "{expired}");

    let elsewhere = tempfile::tempdir().unwrap();
    let wrong = TokenBook::open(elsewhere.path())
        .unwrap()
        .create(appliance.ca.certificate().fingerprint(), &"home".parse().unwrap(), Role::Node, NOW, 60)
        .unwrap();
    let unknown = say(appliance.join(&wrong, "n8", &key).await);
    assert!(unknown.contains("doesn't know the token"), "{unknown}");
}

#[tokio::test]
async fn a_joiner_sends_nothing_to_an_appliance_that_its_token_does_not_pin() {
    let mut appliance = Appliance::new().await;
    let other = Appliance::new().await;
    let token = appliance.token(Role::Node);
    let key = Keypair::generate().unwrap();
    let mut member = other.member;
    let error = join(&[member.addr.into()], None, &token, ask("n7", &key), PATIENCE).await.unwrap_err();
    assert!(matches!(error, LinkError::TokenPinsOtherCa { .. }), "{error}");
    assert!(error.to_string().contains("has another CA than the token pins"), "{error}");
    assert!(member.rx.try_recv().is_err());
    // A token for a cluster that this appliance doesn't have.
    let away = Token { cluster: "away".parse().unwrap(), ..token };
    let error = join(&[appliance.addr.into()], None, &away, ask("n7", &key), PATIENCE).await.unwrap_err();
    assert!(matches!(error, LinkError::NotServed { .. }), "{error}");
}

#[tokio::test]
async fn a_node_lets_nobody_in() {
    let mut appliance = Appliance::new().await;
    let token = appliance.token(Role::Node);
    let node = Member::start(&port().await, issue(&appliance.ca, "home", Role::Node, "n1"), Timing::default(), NOW);
    let key = Keypair::generate().unwrap();
    // A joiner notices by the certificate, before it shows its secret.
    let error = join(&[node.addr.into()], None, &token, ask("n7", &key), PATIENCE).await.unwrap_err();
    assert!(error.to_string().contains("another cluster, role or name"), "{error}");
    let mut raw = Raw::connect(node.addr, "home", None).await;
    let answer = raw.hello(Purpose::Join).await.unwrap();
    assert!(matches!(answer, Some(Frame::Refuse { code: RefuseCode::NotAppliance, .. })), "{answer:?}");
}

#[tokio::test]
async fn joiners_are_few_at_a_time_and_dropped_when_they_dawdle() {
    let appliance = Appliance::new().await;
    let mut dawdlers = Vec::new();
    for _ in 0..8 {
        let mut raw = Raw::connect(appliance.addr, "home", None).await;
        assert_eq!(raw.hello(Purpose::Join).await.unwrap(), Some(Frame::Welcome { version: 1 }));
        dawdlers.push(raw);
    }
    let mut one_more = Raw::connect(appliance.addr, "home", None).await;
    let answer = one_more.hello(Purpose::Join).await.unwrap();
    assert!(matches!(answer, Some(Frame::Refuse { code: RefuseCode::Busy, .. })), "{answer:?}");
    // Too much at once costs a joiner its place, too little in time as well.
    let mut greedy = dawdlers.pop().unwrap();
    greedy.stream.write_all(&20_000_u32.to_be_bytes()).await.unwrap();
    greedy.ends().await;
    for mut dawdler in dawdlers {
        dawdler.ends().await;
    }
    let mut next = Raw::connect(appliance.addr, "home", None).await;
    assert_eq!(soon("a place", next.hello(Purpose::Join)).await.unwrap(), Some(Frame::Welcome { version: 1 }));
}

#[tokio::test]
async fn a_join_that_nobody_answers_fails_in_words() {
    let mut appliance = Appliance::new().await;
    let token = appliance.token(Role::Operator);
    let key = Keypair::generate().unwrap();
    let addresses = [Address::from(appliance.addr)];
    let drop_it = async {
        let Some(Incoming::Join { .. }) = appliance.member.rx.recv().await else { panic!("no join came") };
    };
    let (result, ()) = tokio::join!(join(&addresses, None, &token, ask("ann", &key), PATIENCE), drop_it);
    assert!(result.unwrap_err().to_string().contains("gave no answer"));
}

#[tokio::test]
async fn a_host_that_is_not_there_is_named() {
    let mut appliance = Appliance::new().await;
    let token = appliance.token(Role::Node);
    let key = Keypair::generate().unwrap();
    let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let error = join(&[closed.into()], None, &token, ask("n7", &key), PATIENCE).await.unwrap_err();
    let text = error.to_string();
    assert!(text.contains(&closed.to_string()) && text.contains("refused") && text.contains("firewall"), "{text}");
    let nowhere: Address = "no-such-host.invalid:7474".parse().unwrap();
    let error = join(&[nowhere], None, &token, ask("n7", &key), PATIENCE).await.unwrap_err();
    assert!(error.to_string().contains("can't find the host 'no-such-host.invalid'"), "{error}");
}
