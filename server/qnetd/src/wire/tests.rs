//! The bytes, pinned. They were compared with those of corosync-qnetd 3.0.3.

use super::*;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn ring() -> Opt {
    Opt::RingId(RingId { node: NodeId(1), seq: 0x0102_0304_0506_0708 })
}

/// One message of each type, with every option somewhere.
fn each() -> Vec<Message> {
    let mut nodes = vec![Opt::NodeListType(ListKind::Membership), Opt::Seq(4), ring()];
    let (state, data_center) = (Some(NodeState::Leaving), Some(9));
    nodes.push(Opt::NodeInfo(NodeInfo { node: NodeId(1), data_center, state }));
    nodes.push(Opt::NodeInfo(NodeInfo::new(NodeId(2))));
    nodes.extend([Opt::Heuristics(Heuristics::Pass), Opt::ConfigVersion(11), Opt::Quorate(true)]);
    nodes.extend([Opt::DataCenterId(3), Opt::NodeState(NodeState::Dead)]);
    let init = vec![
        Opt::Seq(2),
        Opt::SupportedMessages(vec![0, 17]),
        Opt::SupportedOptions(vec![23]),
        Opt::NodeId(NodeId(1)),
        Opt::DecisionAlgorithm(1),
        Opt::HeartbeatInterval(8000),
        Opt::TieBreaker(TieBreaker::Node(NodeId(5))),
        ring(),
    ];
    let reply = vec![
        Opt::ReplyErrorCode(ErrorCode::DuplicateNodeId.number()),
        Opt::SupportedMessages(vec![]),
        Opt::SupportedOptions(vec![]),
        Opt::Seq(2),
        Opt::MaxRequestSize(32_768),
        Opt::MaxReplySize(32_768),
        Opt::SupportedAlgorithms(vec![0, 1, 2, 3]),
    ];
    let mut messages = Vec::new();
    for kind in MessageKind::ALL {
        let options = match kind {
            MessageKind::Preinit => vec![Opt::Seq(1), Opt::ClusterName(b"home".to_vec())],
            MessageKind::PreinitReply => {
                vec![Opt::Seq(1), Opt::TlsSupported(TlsSupport::Required), Opt::TlsClientCertRequired(1)]
            }
            MessageKind::StartTls => vec![Opt::Seq(2)],
            MessageKind::Init => init.clone(),
            MessageKind::InitReply => reply.clone(),
            MessageKind::ServerError => vec![Opt::ReplyErrorCode(9)],
            MessageKind::SetOption | MessageKind::SetOptionReply => {
                vec![Opt::Seq(3), Opt::HeartbeatInterval(1000), Opt::KeepActivePartition(true)]
            }
            MessageKind::EchoRequest | MessageKind::EchoReply => vec![Opt::Seq(1)],
            MessageKind::NodeList => nodes.clone(),
            MessageKind::NodeListReply => {
                vec![Opt::Seq(4), Opt::NodeListType(ListKind::Quorum), ring(), Opt::Vote(Vote::AskLater)]
            }
            MessageKind::AskForVote => vec![Opt::Seq(5)],
            MessageKind::AskForVoteReply => vec![Opt::Seq(5), Opt::Vote(Vote::WaitForReply), ring()],
            MessageKind::VoteInfo => vec![Opt::Seq(1), Opt::Vote(Vote::Nack), ring()],
            MessageKind::VoteInfoReply => vec![Opt::Seq(1)],
            MessageKind::HeuristicsChange => vec![Opt::Seq(6), Opt::Heuristics(Heuristics::Fail)],
            MessageKind::HeuristicsChangeReply => {
                vec![Opt::Seq(6), Opt::Vote(Vote::NoChange), ring(), Opt::Heuristics(Heuristics::Fail)]
            }
        };
        messages.push(Message::new(kind, options));
    }
    messages
}

#[test]
fn every_message_has_its_bytes_and_is_read_back() {
    let mut lines = Vec::new();
    for message in each() {
        let bytes = message.encode();
        lines.push(format!("{:?} {}", message.kind, hex(&bytes)));
        let mut inbox = Inbox::default();
        inbox.push(&bytes);
        let Some(Taken::Frame(frame)) = inbox.take() else { panic!("{message:?}") };
        let read: Result<Vec<Opt>, Fault> = options(&frame.body).collect();
        assert_eq!(Message::new(frame.kind, read.unwrap()), message);
    }
    insta::assert_snapshot!(lines.join("\n"));
}

#[test]
fn options_of_unknown_types_are_left_out_wherever_they_are() {
    let body = [0x03, 0xe7, 0, 1, 7, 0, 0, 0, 4, 0, 0, 0, 5, 0x03, 0xe7, 0, 0];
    assert_eq!(Fields::read(&body).unwrap(), Fields { seq: Some(5), ..Fields::default() });
    let nested = [0, 17, 0, 13, 0x03, 0xe7, 0, 1, 7, 0, 9, 0, 4, 0, 0, 0, 2];
    assert_eq!(Fields::read(&nested).unwrap().nodes, [NodeInfo::new(NodeId(2))]);
}

#[test]
fn of_a_repeated_option_the_last_counts_but_nodes_add_up() {
    let node = |node| Opt::NodeInfo(NodeInfo::new(NodeId(node)));
    let message = Message::new(MessageKind::NodeList, vec![Opt::Seq(1), node(2), Opt::Seq(3), node(2), node(1)]);
    let fields = Fields::read(&message.encode()[6..]).unwrap();
    assert_eq!(fields.seq, Some(3));
    assert_eq!(fields.nodes.iter().map(|info| info.node.0).collect::<Vec<_>>(), [2, 2, 1]);
}

#[test]
fn a_fault_is_told_with_the_number_of_the_message_if_it_was_read_before() {
    let fault = |body: &[u8]| Fields::read(body).map(drop).unwrap_err();
    assert_eq!(fault(&[]), Malformed { seq: None, fault: Fault::Truncated });
    assert_eq!(fault(&[0, 0, 0, 4, 0, 0, 0, 5, 0]), Malformed { seq: Some(5), fault: Fault::Truncated });
    assert_eq!(fault(&[0, 0, 0, 4, 0, 0, 0, 5, 0, 1, 0, 9, 1]), Malformed { seq: Some(5), fault: Fault::Truncated });
    let length = Fault::Length { option: 0, length: 3 };
    assert_eq!(fault(&[0, 0, 0, 3, 0, 0, 5]), Malformed { seq: None, fault: length });
    for (option, value) in [(2, 3), (16, 0), (18, 4), (19, 0), (20, 2), (22, 0), (23, 2)] {
        let bytes = [0, option, 0, 1, value];
        let fault = fault(&bytes).fault;
        assert_eq!(fault, Fault::Value { option: option.into(), value });
    }
    assert_eq!(fault(&[0, 21, 0, 5, 4, 0, 0, 0, 0]).fault, Fault::Value { option: 21, value: 4 });
    assert_eq!(fault(&[0, 17, 0, 8, 0, 9, 0, 4, 0, 0, 0, 0]).fault, Fault::NoNodeId);
    assert_eq!(fault(&[0, 4, 0, 3, 0, 1, 0]).fault, Fault::Length { option: 4, length: 3 });
}

#[test]
fn numbers_of_types_and_errors_are_their_places() {
    for (number, kind) in (0..).zip(MessageKind::ALL) {
        assert_eq!((kind.number(), MessageKind::from_number(number)), (number, Some(kind)));
    }
    for (number, code) in (0..).zip(ErrorCode::ALL) {
        assert_eq!((code.number(), ErrorCode::from_number(number)), (number, Some(code)));
    }
    for (number, algorithm) in (0..).zip(Algorithm::ALL) {
        assert_eq!((algorithm.number(), Algorithm::from_number(number)), (number, Some(algorithm)));
    }
    assert_eq!(MessageKind::from_number(18), None);
    assert_eq!(ErrorCode::from_number(20), None);
    assert_eq!(Algorithm::from_number(4), None);
}

#[test]
fn messages_are_found_wherever_the_stream_is_cut_and_long_ones_never_kept() {
    let mut stream = Vec::new();
    for message in each() {
        stream.extend(message.encode());
    }
    let whole = each().len();
    for size in [1, 2, 5, 6, 7, 64, stream.len()] {
        let mut inbox = Inbox::default();
        let mut frames = 0;
        for portion in stream.chunks(size) {
            inbox.push(portion);
            while let Some(taken) = inbox.take() {
                assert!(matches!(taken, Taken::Frame(_)));
                frames += 1;
            }
        }
        assert_eq!(frames, whole, "in portions of {size}");
    }
    let mut inbox = Inbox::default();
    inbox.push(&[0, 8, 0xff, 0xff, 0xff, 0xff]);
    for _ in 0..1000 {
        inbox.push(&[0; 4096]);
        assert_eq!(inbox.take(), None);
        assert!(inbox.rest().is_empty(), "what is dropped is not kept");
    }
    let mut inbox = Inbox::default();
    inbox.push(&[0, 99, 0, 0, 0, 2, 1, 2, 0, 8, 0, 0]);
    assert_eq!(inbox.take(), Some(Taken::Skipped(Skipped::UnknownKind(99))));
    assert_eq!(inbox.rest(), [0, 8, 0, 0]);
}
