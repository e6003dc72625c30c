//! The choice of a node for one resource, step by step as Proxmox VE takes it, and why each other node isn't it.
//!
//! 1. The candidates are the nodes of the highest priority that are there; with no rule, all. A node without the memory
//!    for it counts as not there.
//! 2. Without failback a resource stays where it is allowed to be.
//! 3. Who tries the next node leaves out those where it failed.
//! 4. Nodes of resources that it is kept apart from are left out; then, where resources that it belongs with are, only
//!    the node with most of them remains.
//! 5. It goes home, to the node that it left for maintenance. 6. It stays where it is. 7. The best score, then the name.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::judge::{EffectiveRules, NodeRule, list};
use super::picture::{Picture, TooSmall};
use super::score::{Scores, Scoring, least, score};
use crate::name::{MemberName, ResourceName, RuleName};

/// What the choice is to favour.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Preference {
    /// Staying.
    #[default]
    None,
    /// The best node, wherever it is now.
    BestScore,
    /// Another node, because it failed where it is.
    TryNext,
}

/// The question.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Wish<'a> {
    /// The resource.
    pub resource: &'a ResourceName,
    /// What to favour.
    pub preference: Preference,
    /// Where it failed.
    pub failed: &'a BTreeSet<MemberName>,
    /// The node that it left for maintenance and shall return to.
    pub home: Option<&'a MemberName>,
    /// Where it is.
    pub current: Option<&'a MemberName>,
    /// It returns to a node of higher priority as soon as that is there.
    pub failback: bool,
}

/// The answer.
#[derive(Clone, PartialEq, Debug)]
pub struct Choice {
    /// The resource.
    pub resource: ResourceName,
    /// The node, if there is one, and why it is this one.
    pub outcome: Outcome,
    /// Why each other node isn't it.
    pub others: BTreeMap<MemberName, LeftOut>,
}

/// The node, and why.
#[derive(Clone, PartialEq, Debug)]
pub enum Outcome {
    /// It stays, though another node is preferred: failback is off.
    StaysWithoutFailback {
        /// Where it is.
        node: MemberName,
        /// The nodes that its rule prefers and that could take it.
        preferred: BTreeSet<MemberName>,
    },
    /// It stays, because nothing asks it to leave.
    Stays {
        /// Where it is.
        node: MemberName,
    },
    /// It returns to the node that it left for maintenance.
    Home {
        /// That node.
        node: MemberName,
    },
    /// The only one that is left.
    Only {
        /// That node.
        node: MemberName,
    },
    /// The best of those that are left.
    Best {
        /// That node.
        node: MemberName,
        /// Its score.
        score: f64,
        /// How scores were found.
        scoring: Scoring,
        /// The node that didn't say what it has, where that is why resources were counted.
        unknown: Option<MemberName>,
    },
    /// The one after the node where it failed.
    Next {
        /// That node.
        node: MemberName,
        /// Where it failed.
        after: MemberName,
    },
    /// No node can have it.
    Nowhere,
}

/// Why a node isn't chosen.
#[derive(Clone, PartialEq, Debug)]
pub enum LeftOut {
    /// It is offline, in maintenance or lost.
    TakesNothing,
    /// Its storage or hardware is elsewhere.
    NotThere,
    /// A strict rule names other nodes.
    NotAllowed {
        /// The rule.
        rule: RuleName,
    },
    /// Nodes of a higher priority are there.
    LowerPriority {
        /// The rule.
        rule: RuleName,
        /// Its priority; `None` where the rule doesn't name it.
        priority: Option<u32>,
        /// The priority of the candidates.
        best: u32,
    },
    /// The resource failed there.
    Failed,
    /// A resource that it is kept apart from is there, or on the way to or from it.
    Apart {
        /// That resource.
        peer: ResourceName,
        /// The rule.
        rule: RuleName,
    },
    /// More of the resources that it belongs with are on another node.
    Together {
        /// The rule.
        rule: Option<RuleName>,
        /// The node with most of them.
        at: MemberName,
    },
    /// Its memory is promised to others.
    TooSmall(TooSmall),
    /// It could have it, but it stays where it is.
    Staying,
    /// It could have it, but it goes home.
    GoingHome,
    /// It could have it, but scores no better.
    Score {
        /// Its score: the lower, the better.
        score: f64,
    },
}

impl Choice {
    /// The node.
    #[must_use]
    pub fn node(&self) -> Option<&MemberName> {
        match &self.outcome {
            Outcome::StaysWithoutFailback { node, .. }
            | Outcome::Stays { node }
            | Outcome::Home { node }
            | Outcome::Only { node }
            | Outcome::Best { node, .. }
            | Outcome::Next { node, .. } => Some(node),
            Outcome::Nowhere => None,
        }
    }
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.resource, self.outcome)?;
        for (node, why) in &self.others {
            write!(f, "; not {node}: {why}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::StaysWithoutFailback { node, preferred } => {
                write!(f, "failback is off: it stays on {node} though ")?;
                list(f, preferred)?;
                f.write_str(if preferred.len() == 1 { " is preferred" } else { " are preferred" })
            }
            Self::Stays { node } => write!(f, "it stays on {node}"),
            Self::Home { node } => write!(f, "{node} is the node that it left for maintenance"),
            Self::Only { node } => write!(f, "{node} is the only node that can have it"),
            Self::Best { node, score, scoring, unknown } => {
                match scoring {
                    Scoring::Basic => write!(f, "{node} has the fewest resources ({score})")?,
                    Scoring::Static => write!(f, "{node} has most left of what it promised (score {score:.3})")?,
                    Scoring::Dynamic => write!(f, "{node} is used least (score {score:.3})")?,
                }
                match unknown {
                    None => Ok(()),
                    Some(unknown) => {
                        write!(f, "; resources are counted, because processors or memory of {unknown} aren't known")
                    }
                }
            }
            Self::Next { node, after } => write!(f, "{node} comes next after {after}, where it failed"),
            Self::Nowhere => f.write_str("no node can have it"),
        }
    }
}

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TakesNothing => f.write_str("it takes no resources now"),
            Self::NotThere => f.write_str("its storage or hardware is not there"),
            Self::NotAllowed { rule } => write!(f, "the rule {rule} allows other nodes only"),
            Self::LowerPriority { rule, priority: Some(priority), best } => {
                write!(f, "its priority by the rule {rule} is {priority}, and a node with {best} is there")
            }
            Self::LowerPriority { rule, priority: None, best: _ } => {
                write!(f, "the rule {rule} prefers other nodes, and one of them is there")
            }
            Self::Failed => f.write_str("it failed there"),
            Self::Apart { peer, rule } => write!(f, "{peer} is there, and the rule {rule} keeps them apart"),
            Self::Together { rule: Some(rule), at } => {
                write!(f, "what it belongs with by the rule {rule} is on {at}")
            }
            Self::Together { rule: None, at } => write!(f, "what it belongs with is on {at}"),
            Self::TooSmall(why) => why.fmt(f),
            Self::Staying => f.write_str("it could go there, but has no reason to leave"),
            Self::GoingHome => f.write_str("it could go there, but returns to the node that it left for maintenance"),
            Self::Score { score } => write!(f, "its score is no better ({score:.3})"),
        }
    }
}

/// The nodes that rules and memory leave for a whole bundle that is on one node and shall leave it.
pub(super) fn candidates(picture: &Picture, rules: &EffectiveRules, wish: &Wish<'_>) -> BTreeSet<MemberName> {
    let mut surroundings = Surroundings { apart: BTreeMap::new(), together: BTreeMap::new() };
    for member in rules.bundle(wish.resource) {
        surroundings.apart.extend(Surroundings::of(picture, rules, member).apart);
    }
    field(picture, rules, &surroundings, wish).left
}

/// The nodes that are left, and why the others aren't.
struct Field {
    left: BTreeSet<MemberName>,
    out: BTreeMap<MemberName, LeftOut>,
}

impl Field {
    /// Drops the nodes for which there is a reason.
    fn drop_where(&mut self, reason: impl Fn(&MemberName) -> Option<LeftOut>) {
        let Self { left, out } = self;
        left.retain(|node| match reason(node) {
            Some(why) => {
                out.insert(node.clone(), why);
                false
            }
            None => true,
        });
    }
}

/// Chooses a node for a resource.
#[must_use]
pub fn choose(picture: &Picture, rules: &EffectiveRules, scoring: Scoring, wish: &Wish<'_>) -> Choice {
    let surroundings = Surroundings::of(picture, rules, wish.resource);
    if let Some(choice) = stays_without_failback(picture, rules, &surroundings, wish) {
        return choice;
    }
    let mut field = field(picture, rules, &surroundings, wish);
    if let Some(at) = surroundings.majority(&field.left) {
        let rule = rules.tie(wish.resource).cloned();
        field.drop_where(|node| (*node != at).then(|| LeftOut::Together { rule: rule.clone(), at: at.clone() }));
    }
    let own = BTreeSet::from([wish.resource]);
    field.drop_where(|node| picture.fits(node, &own).err().map(LeftOut::TooSmall));

    let left = |node: Option<&MemberName>| node.filter(|node| field.left.contains(*node)).cloned();
    if let Some(node) = left(wish.home) {
        return settle(field, wish, Outcome::Home { node }, |_| LeftOut::GoingHome);
    }
    if wish.preference == Preference::None
        && let Some(node) = left(wish.current)
    {
        return settle(field, wish, Outcome::Stays { node }, |_| LeftOut::Staying);
    }
    // Where one is left at most there is nothing to compare.
    let none = Scores { scoring, unknown: None, nodes: BTreeMap::new() };
    let scores = if field.left.len() > 1 { score(picture, wish.resource, scoring) } else { none };
    by_score(field, wish, &scores)
}

/// The node that [`choose`] answers, where it takes no comparison of all nodes to know: no rule is about the resource, and
/// it may stay where it is, or goes where the score is best. Nearly all resources are asked about again and again, and this
/// is the answer; where there is none, `choose` has to be asked, which also knows why each other node isn't it.
#[must_use]
pub fn plainly<'a>(
    picture: &'a Picture,
    rules: &EffectiveRules,
    scoring: Scoring,
    wish: &Wish<'_>,
) -> Option<&'a MemberName> {
    if wish.home.is_some() || rules.speak_of(wish.resource) {
        return None;
    }
    let view = picture.resources().get(wish.resource)?;
    let is_there = |node: &MemberName| view.only_on.is_empty() || view.only_on.contains(node);
    match (wish.preference, wish.current) {
        (Preference::None, Some(current)) => {
            let (node, seen) = picture.nodes.get_key_value(current)?;
            (seen.may_take && is_there(node) && picture.has_room(node, view)).then_some(node)
        }
        (Preference::None, None) | (Preference::BestScore, _) => least(picture, view, scoring, is_there),
        (Preference::TryNext, _) => None,
    }
}

/// Step 7.
fn by_score(field: Field, wish: &Wish<'_>, scores: &Scores) -> Choice {
    let of = |node: &MemberName| scores.nodes.get(node).copied().unwrap_or(f64::INFINITY);
    let mut order: Vec<(f64, &MemberName)> = field.left.iter().map(|node| (of(node), node)).collect();
    // The sort is stable and the nodes come by name.
    order.sort_by(|(one, _), (two, _)| one.total_cmp(two));
    let order: Vec<&MemberName> = order.into_iter().map(|(_, node)| node).collect();
    let current = wish.current.and_then(|current| order.iter().position(|node| *node == current));
    let next = match (wish.preference, current) {
        (Preference::TryNext, Some(current)) => order.get(current + 1).zip(order.get(current)),
        (Preference::None | Preference::BestScore | Preference::TryNext, _) => None,
    };
    let outcome = match (next, order.as_slice()) {
        (Some((node, after)), _) => Outcome::Next { node: (*node).clone(), after: (*after).clone() },
        (None, []) => Outcome::Nowhere,
        (None, [node]) => Outcome::Only { node: (*node).clone() },
        (None, [node, ..]) => Outcome::Best {
            node: (*node).clone(),
            score: of(node),
            scoring: scores.scoring,
            unknown: scores.unknown.clone(),
        },
    };
    settle(field, wish, outcome, |node| LeftOut::Score { score: of(node) })
}

/// The answer: the nodes that are left and not chosen are left out for this reason.
fn settle(field: Field, wish: &Wish<'_>, outcome: Outcome, why: impl Fn(&MemberName) -> LeftOut) -> Choice {
    let mut choice = Choice { resource: wish.resource.clone(), outcome, others: field.out };
    let chosen = choice.node().cloned();
    let rest = field.left.into_iter().filter(|node| Some(node) != chosen.as_ref());
    choice.others.extend(rest.map(|node| {
        let why = why(&node);
        (node, why)
    }));
    choice
}

/// Whether the hard rules allow a resource on a node that is to run it: where its storage is, strict rules, what it is kept
/// apart from, where what it belongs with is, and memory.
///
/// # Errors
/// Which rule is in the way.
pub fn may_be_on(
    picture: &Picture,
    rules: &EffectiveRules,
    resource: &ResourceName,
    node: &MemberName,
) -> Result<(), LeftOut> {
    if !picture.has_what_it_needs(node, resource) {
        return Err(LeftOut::NotThere);
    }
    picture.fits(node, &BTreeSet::from([resource])).map_err(LeftOut::TooSmall)?;
    if !rules.speak_of(resource) {
        return Ok(());
    }
    if let Some(belongs) = rules.node_rule(resource)
        && priority(belongs, node).is_none()
    {
        return Err(LeftOut::NotAllowed { rule: belongs.rule.clone() });
    }
    let surroundings = Surroundings::of(picture, rules, resource);
    if let Some((peer, rule)) = surroundings.apart.get(node) {
        return Err(LeftOut::Apart { peer: (*peer).clone(), rule: (*rule).clone() });
    }
    // Company on nodes that take nothing waits for nobody.
    let takers = picture.takers().cloned().collect();
    match surroundings.majority(&takers) {
        Some(at) if !surroundings.together.contains_key(node) => {
            Err(LeftOut::Together { rule: rules.tie(resource).cloned(), at })
        }
        Some(_) | None => Ok(()),
    }
}

/// Step 2.
fn stays_without_failback(
    picture: &Picture,
    rules: &EffectiveRules,
    surroundings: &Surroundings<'_>,
    wish: &Wish<'_>,
) -> Option<Choice> {
    if wish.preference != Preference::None || wish.failback {
        return None;
    }
    let current = wish.current.filter(|node| picture.takes(node))?;
    let allowed = rules.node_rule(wish.resource).is_none_or(|belongs| priority(belongs, current).is_some());
    let company = surroundings.together.keys().any(|node| picture.takes(node));
    if !allowed || surroundings.apart.contains_key(current) || company && !surroundings.together.contains_key(current) {
        return None;
    }
    let mut field = field(picture, rules, surroundings, wish);
    let preferred: BTreeSet<_> = field.left.clone();
    let node = current.clone();
    let outcome = if preferred.contains(current) || preferred.is_empty() {
        Outcome::Stays { node }
    } else {
        Outcome::StaysWithoutFailback { node, preferred }
    };
    field.out.remove(current);
    Some(settle(field, wish, outcome, |_| LeftOut::Staying))
}

/// Steps 1, 3 and 4 but for the resources that it belongs with.
fn field(picture: &Picture, rules: &EffectiveRules, surroundings: &Surroundings<'_>, wish: &Wish<'_>) -> Field {
    let rule = rules.node_rule(wish.resource);
    let bundle = rules.bundle(wish.resource);
    // Where company is, memory doesn't choose another node: they would run apart. It waits there instead.
    if !surroundings.together.is_empty() {
        let anywhere = filtered(picture, rule, surroundings, wish, |_| None);
        if surroundings.majority(&anywhere.left).is_some() {
            return anywhere;
        }
    }
    // The first of a bundle takes a node that can have all of it, because the others will follow. Where it is already it
    // may stay: nothing that runs is moved to make room.
    let here = |node: &MemberName| picture.resources().get(wish.resource).is_some_and(|view| view.seat.counts_on(node));
    filtered(picture, rule, surroundings, wish, |node| match picture.fits(node, &bundle) {
        Err(why) if !here(node) => Some(LeftOut::TooSmall(why)),
        Ok(()) | Err(_) => None,
    })
}

fn filtered(
    picture: &Picture,
    rule: Option<&NodeRule>,
    surroundings: &Surroundings<'_>,
    wish: &Wish<'_>,
    too_small: impl Fn(&MemberName) -> Option<LeftOut>,
) -> Field {
    let mut field = Field { left: picture.nodes.keys().cloned().collect(), out: BTreeMap::new() };
    field.drop_where(|node| (!picture.takes(node)).then_some(LeftOut::TakesNothing));
    field.drop_where(|node| (!picture.has_what_it_needs(node, wish.resource)).then_some(LeftOut::NotThere));
    if let Some(belongs) = rule {
        field.drop_where(|node| match priority(belongs, node) {
            Some(_) => None,
            None => Some(LeftOut::NotAllowed { rule: belongs.rule.clone() }),
        });
    }
    field.drop_where(too_small);
    if let Some(belongs) = rule
        && let Some(Some(best)) = field.left.iter().filter_map(|node| priority(belongs, node)).max()
    {
        field.drop_where(|node| {
            let priority = priority(belongs, node).flatten();
            let lower = priority.is_none_or(|priority| priority < best);
            lower.then(|| LeftOut::LowerPriority { rule: belongs.rule.clone(), priority, best })
        });
    }
    if wish.preference == Preference::TryNext {
        field.drop_where(|node| wish.failed.contains(node).then_some(LeftOut::Failed));
    }
    field.drop_where(|node| {
        let (peer, rule) = surroundings.apart.get(node)?;
        Some(LeftOut::Apart { peer: (*peer).clone(), rule: (*rule).clone() })
    });
    field
}

/// The priority of a node by a rule. The inner `None` is the last resort that a rule which isn't strict leaves.
fn priority(belongs: &NodeRule, node: &MemberName) -> Option<Option<u32>> {
    match belongs.nodes.get(node) {
        Some(priority) => Some(Some(*priority)),
        None if belongs.strict => None,
        None => Some(None),
    }
}

/// The nodes that rules about other resources speak of.
pub(super) struct Surroundings<'a> {
    /// Nodes of resources that it is kept apart from: both ends of their moves.
    pub apart: BTreeMap<&'a MemberName, (&'a ResourceName, &'a RuleName)>,
    /// Nodes that resources it belongs with are on or move to, and how many.
    pub together: BTreeMap<&'a MemberName, usize>,
}

impl<'a> Surroundings<'a> {
    pub fn of(picture: &'a Picture, rules: &'a EffectiveRules, resource: &'a ResourceName) -> Self {
        let mut surroundings = Self { apart: BTreeMap::new(), together: BTreeMap::new() };
        for (peer, rule) in rules.apart_from(resource) {
            for node in picture.resources().get(peer).into_iter().flat_map(|view| view.seat.nodes()) {
                surroundings.apart.entry(node).or_insert((peer, rule));
            }
        }
        for peer in rules.bundle(resource).into_iter().filter(|peer| *peer != resource) {
            if let Some(node) = picture.resources().get(peer).and_then(|view| view.seat.destination()) {
                *surroundings.together.entry(node).or_default() += 1;
            }
        }
        surroundings
    }

    /// The one of these nodes with most of its company; the first by name, if several have as many.
    fn majority(&self, among: &BTreeSet<MemberName>) -> Option<MemberName> {
        let among = self.together.iter().filter(|(node, _)| among.contains(**node));
        among.rev().max_by_key(|(_, count)| **count).map(|(node, _)| (*node).clone())
    }
}

#[cfg(test)]
mod tests;
