//! The same for people: one page without a script and without anything from elsewhere, readable on a phone, dark where the
//! reader's system is.

use std::fmt::{self, Display, Write as _};

use super::document::{ClusterSeen, Document, FencedSeen, QdeviceNodeSeen, QdeviceSeen};
use super::machine::{Clock, Machine, Mistake, Ssh, Watchdog};
use crate::http::{Answer, StatusCode};

const STYLE: &str = include_str!("style.css");

/// A clock that no server has confirmed for this long is told of: servers are asked every 17 minutes.
const CONFIRMED_WITHIN_S: u64 = 3600;

/// The page.
pub(super) fn answer(document: &Document) -> Answer {
    Answer { status: StatusCode::OK, kind: "text/html; charset=utf-8", body: render(document) }
}

/// Text in HTML: whatever is not a mark of ours comes through here.
struct Text<T>(T);

impl<T: Display> Display for Text<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        struct Escape<'a, 'b>(&'a mut fmt::Formatter<'b>);
        impl fmt::Write for Escape<'_, '_> {
            fn write_str(&mut self, text: &str) -> fmt::Result {
                for letter in text.chars() {
                    match letter {
                        '&' => self.0.write_str("&amp;")?,
                        '<' => self.0.write_str("&lt;")?,
                        '>' => self.0.write_str("&gt;")?,
                        '"' => self.0.write_str("&quot;")?,
                        '\'' => self.0.write_str("&#39;")?,
                        other => self.0.write_char(other)?,
                    }
                }
                Ok(())
            }
        }
        write!(Escape(f), "{}", self.0)
    }
}

/// How something stands.
#[derive(Clone, Copy)]
enum Mark {
    Good,
    Bad,
    Plain,
}

/// What is written in the order in which it is read. Writing to memory can't fail.
struct Page(String);

impl Page {
    fn heading(&mut self, text: impl Display) {
        let _ = write!(self.0, "<h2>{}</h2>", Text(text));
    }

    fn rows(&mut self, write: impl FnOnce(&mut Self)) {
        self.0.push_str("<dl>");
        write(self);
        self.0.push_str("</dl>");
    }

    fn row(&mut self, name: impl Display, mark: Mark, value: impl Display) {
        let class = match mark {
            Mark::Good => " class=good",
            Mark::Bad => " class=bad",
            Mark::Plain => "",
        };
        let _ = write!(self.0, "<dt>{}</dt><dd{class}>{}</dd>", Text(name), Text(value));
    }
}

fn render(document: &Document) -> String {
    let mut page = Page(String::with_capacity(8192));
    let name = Text(&document.name);
    let _ = write!(
        page.0,
        "<!doctype html><html lang=en><head><meta charset=utf-8><meta name=viewport \
         content=\"width=device-width,initial-scale=1\"><meta http-equiv=refresh content=10><title>{name}: \
         Tiebreaker</title><style>{STYLE}</style></head><body><h1>{name}</h1>"
    );
    if let Some(mistake) = document.machine.as_ref().and_then(|machine| machine.mistake.as_ref()) {
        let _ = write!(
            page.0,
            "<p class=alarm><b>The settings don't hold.</b> {}<br>The last settings that were in order go on.</p>",
            Text(words(mistake))
        );
    }
    page.rows(|page| appliance(page, document));
    for cluster in &document.clusters {
        own(&mut page, cluster);
    }
    for cluster in document.qdevice.iter().flatten() {
        votes(&mut page, cluster, document.now_ms);
    }
    for cluster in &document.corosync {
        fenced(&mut page, cluster);
    }
    if document.clusters.is_empty()
        && document.corosync.is_empty()
        && document.qdevice.as_ref().is_none_or(Vec::is_empty)
    {
        page.0.push_str("<p>No cluster is here yet.</p>");
    }
    page.0.push_str("<footer>The same as data: <a href=\"/status.json\">status.json</a></footer></body></html>\n");
    page.0
}

fn appliance(page: &mut Page, document: &Document) {
    page.row("Version", Mark::Plain, format_args!("tiebreaker-server {}", document.version));
    page.row("Runs for", Mark::Plain, span(document.up_s));
    if document.addresses.is_empty() {
        page.row("Addresses", Mark::Bad, "none");
    } else {
        page.row("Addresses", Mark::Plain, document.addresses.join(", "));
    }
    if let Some(name) = &document.mdns_name {
        page.row("Name here", Mark::Plain, name);
    }
    if !document.members_find_it_at.is_empty() {
        page.row("Members find it at", Mark::Plain, document.members_find_it_at.join(", "));
    }
    if let Some(Machine { watchdog, clock, ssh, mistake: _ }) = &document.machine {
        let (mark, said) = of_watchdog(watchdog);
        page.row("Watchdog", mark, said);
        let (mark, said) = of_clock(clock, document.boot_s);
        page.row("Clock", mark, said);
        if let Some(ssh) = ssh {
            let (mark, said) = of_ssh(*ssh);
            page.row("ssh for pvecm", mark, said);
        }
    }
}

fn words(mistake: &Mistake) -> String {
    let Mistake { file, line, column, what } = mistake;
    match (line, column) {
        (Some(line), Some(column)) => format!("{file}, line {line}, column {column}: {what}"),
        (Some(line), None) => format!("{file}, line {line}: {what}"),
        (None, _) => format!("{file}: {what}"),
    }
}

fn of_watchdog(watchdog: &Watchdog) -> (Mark, String) {
    let Some(identity) = &watchdog.identity else {
        return (Mark::Bad, "none: a machine that hangs stays so".into());
    };
    let seconds = watchdog.timeout_s.map_or_else(String::new, |seconds| format!(", {seconds} s"));
    match watchdog.last_boot.as_deref() {
        Some("watchdog") => (Mark::Bad, format!("{identity}{seconds}; it restarted this machine the last time")),
        Some(other) => (Mark::Bad, format!("{identity}{seconds}; this machine was restarted for its {other}")),
        None => (Mark::Good, format!("{identity}{seconds}")),
    }
}

fn of_ssh(ssh: Ssh) -> (Mark, &'static str) {
    match ssh {
        Ssh::Open => (Mark::Plain, "open for one pvecm qdevice setup; the code is on this machine's screen"),
        Ssh::Used => (Mark::Good, "closed: one cluster was set up"),
        Ssh::Late => (Mark::Plain, "closed: nobody has finished in time; restart the machine for another try"),
        Ssh::Guessed => (Mark::Bad, "closed: too many codes were wrong; restart the machine for another try"),
        Ssh::Failed => (Mark::Bad, "it has failed; this machine's screen says why"),
    }
}

fn of_clock(clock: &Clock, boot_s: u64) -> (Mark, String) {
    let ago = clock.answered_at_s.map(|at| boot_s.saturating_sub(at));
    match (clock.asks, ago) {
        (false, _) => (Mark::Plain, "no time server is to be asked".into()),
        (true, None) => (Mark::Bad, "no time server has answered yet".into()),
        (true, Some(ago)) if clock.answers && ago < CONFIRMED_WITHIN_S => {
            (Mark::Good, format!("kept, confirmed {} ago", span(ago)))
        }
        (true, Some(ago)) => (Mark::Bad, format!("no time server has answered for {}", span(ago))),
    }
}

fn own(page: &mut Page, cluster: &ClusterSeen) {
    page.heading(format_args!("Cluster {}", cluster.name));
    page.rows(|page| {
        let Some(answer) = &cluster.answer else {
            page.row("State", Mark::Bad, "it doesn't answer: look at the daemon's log");
            return;
        };
        let mark = if answer.has_majority() { Mark::Good } else { Mark::Bad };
        page.row("Leader", mark, answer.leader.as_deref().unwrap_or("none"));
        page.row("Votes", mark, format_args!("{} of {}", answer.votes_cast, answer.votes));
        power(page, answer.power_held, answer.fences_open);
        if answer.alarms > 0 {
            page.row("Alarms", Mark::Bad, format_args!("{}: `tiebreaker status` tells them", answer.alarms));
        }
        for member in &answer.members {
            let mark = if member.state == "online" { Mark::Good } else { Mark::Bad };
            let vote = if member.votes { ", votes" } else { "" };
            page.row(format_args!("{} ({})", member.name, member.part), mark, format_args!("{}{vote}", member.state));
        }
    });
}

fn power(page: &mut Page, held: bool, open: usize) {
    match (held, open) {
        (true, _) => page.row("Fencing", Mark::Bad, "held by an operator"),
        (false, 0) => page.row("Fencing", Mark::Good, "ready"),
        (false, _) => page.row("Fencing", Mark::Bad, format_args!("{open} under way")),
    }
}

fn votes(page: &mut Page, cluster: &QdeviceSeen, now_ms: u64) {
    page.heading(format_args!("QDevice of {}", cluster.name));
    page.rows(|page| {
        page.row("Decided by", Mark::Plain, &cluster.algorithm);
        for node in &cluster.nodes {
            let (mark, said) = of_node(node, now_ms);
            page.row(format_args!("Node {}", node.node), mark, said);
        }
    });
}

fn of_node(node: &QdeviceNodeSeen, now_ms: u64) -> (Mark, String) {
    let mark = match node.vote.as_deref() {
        Some("ACK") => Mark::Good,
        Some(_) => Mark::Bad,
        None => Mark::Plain,
    };
    let mut said = node.vote.clone().unwrap_or_else(|| "no vote yet".into());
    if let Some(since) = node.since_ms {
        let _ = write!(said, " for {}", span(now_ms.saturating_sub(since) / 1000));
    }
    if let Some(why) = &node.why {
        let _ = write!(said, ": {why}");
    }
    (mark, said)
}

fn fenced(page: &mut Page, cluster: &FencedSeen) {
    page.heading(format_args!("Fencing of {}", cluster.name));
    page.rows(|page| {
        power(page, cluster.power_held, cluster.fences_open);
        for node in &cluster.nodes {
            let (mark, said) =
                if node.proven { (Mark::Good, "can be fenced") } else { (Mark::Bad, "can't be fenced now") };
            page.row(&node.name, mark, said);
        }
    });
}

/// A span in the two largest units that it has.
fn span(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds / 3600 % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::document;
    use super::*;

    #[test]
    fn nothing_that_somebody_named_becomes_a_mark() {
        let evil = "<script>alert(\"1\")</script>'&";
        let mut document = document();
        document.name = evil.into();
        document.addresses = vec![evil.into()];
        document.members_find_it_at = vec![evil.into()];
        document.mdns_name = Some(evil.into());
        document.clusters[0].name = evil.into();
        let answer = document.clusters[0].answer.as_mut().unwrap();
        (answer.leader, answer.members[0].name, answer.members[0].state) =
            (Some(evil.into()), evil.into(), evil.into());
        let votes = &mut document.qdevice.as_mut().unwrap()[0];
        (votes.name, votes.algorithm, votes.nodes[0].vote) = (evil.into(), evil.into(), Some(evil.into()));
        votes.nodes[0].why = Some(evil.into());
        (document.corosync[0].name, document.corosync[0].nodes[0].name) = (evil.into(), evil.into());
        let machine = document.machine.as_mut().unwrap();
        let mistake = machine.mistake.as_mut().unwrap();
        (mistake.file, mistake.what) = (evil.into(), evil.into());
        (machine.watchdog.identity, machine.watchdog.last_boot) = (Some(evil.into()), Some(evil.into()));
        let page = render(&document);
        assert!(!page.contains("<script") && !page.contains("'&<"), "{page}");
        assert_eq!(page.matches("&lt;script&gt;alert(&quot;1&quot;)&lt;/script&gt;&#39;&amp;").count(), 19, "{page}");
    }

    #[test]
    fn a_mistake_stands_above_all_with_its_place() {
        let page = render(&document());
        let at = page.find("tiebreaker.toml, line 4, column 1: unknown field `server`").unwrap();
        assert!(at < page.find("Version").unwrap(), "{page}");
    }

    #[test]
    fn the_page_needs_nothing_from_elsewhere() {
        let page = render(&document());
        for source in ["src=", "@import", "url(", "http:", "https:", "<script"] {
            assert!(!page.contains(source), "{source}: {page}");
        }
    }

    #[test]
    fn what_is_wrong_is_marked() {
        let mark = |mark: Mark| match mark {
            Mark::Good => "good",
            Mark::Bad => "bad",
            Mark::Plain => "plain",
        };
        let of = |asks, answered_at_s, answers| {
            let (is, said) = of_clock(&Clock { asks, answered_at_s, answers }, 5000);
            (mark(is), said)
        };
        assert_eq!(of(false, None, false).0, "plain");
        assert_eq!(of(true, None, false), ("bad", "no time server has answered yet".into()));
        assert_eq!(of(true, Some(4990), true), ("good", "kept, confirmed 10 s ago".into()));
        assert_eq!(of(true, Some(4000), false), ("bad", "no time server has answered for 16 min 40 s".into()));
        assert_eq!(of(true, Some(100), true).0, "bad", "the word is old");
        let dog = |identity: Option<&str>, last_boot: Option<&str>| {
            let (identity, last_boot) = (identity.map(Into::into), last_boot.map(Into::into));
            mark(of_watchdog(&Watchdog { identity, timeout_s: Some(15), last_boot }).0)
        };
        assert_eq!([Ssh::Open, Ssh::Used, Ssh::Failed].map(|ssh| mark(of_ssh(ssh).0)), ["plain", "good", "bad"]);
        assert_eq!([dog(None, None), dog(Some("x"), None), dog(Some("x"), Some("watchdog"))], ["bad", "good", "bad"]);
    }

    #[test]
    fn spans_have_two_units() {
        assert_eq!([59, 61, 3661, 90_000].map(span), ["59 s", "1 min 1 s", "1 h 1 min", "1 d 1 h"]);
    }
}
