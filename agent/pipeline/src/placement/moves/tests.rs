use super::*;
use crate::placement::fixture::{Cluster, GIB, apart, node, only_on, res, together};

fn moves(cluster: &Cluster, resource: &str, target: &str) -> Result<Vec<String>, Refusal> {
    let moves = check_move(&cluster.picture, &cluster.rules, &res(resource), &node(target))?;
    assert_eq!(moves.target, node(target));
    Ok(moves.resources.iter().map(ToString::to_string).collect())
}

#[test]
fn what_belongs_together_moves_along() {
    let mut cluster = Cluster::new(3, &[("a", "n1"), ("b", "n1"), ("c", "n2"), ("d", "n1"), ("e", "-")])
        .with(&[("t1", together(&["a", "b", "e"])), ("t2", together(&["b", "c"]))]);
    assert_eq!(moves(&cluster, "a", "n3").unwrap(), ["a", "b", "c"]);
    assert_eq!(moves(&cluster, "a", "n2").unwrap(), ["a", "b"]);
    cluster.moving("b", "n1", "n2");
    assert_eq!(moves(&cluster, "a", "n2").unwrap(), ["a"]);
    assert_eq!(moves(&cluster, "d", "n2").unwrap(), ["d"]);
}

#[test]
fn no_move_to_where_someone_is_that_it_is_kept_apart_from() {
    let mut cluster = Cluster::new(3, &[("a", "n1"), ("b", "n2"), ("c", "n1")])
        .with(&[("t", together(&["a", "c"])), ("x", apart(&["a", "b"]))]);
    let text = |cluster: &Cluster| moves(cluster, "c", "n2").unwrap_err().to_string();
    let refused = "b is on n2 or on its way to or from it, and the rule x keeps a apart from it: move b first";
    assert_eq!(text(&cluster), refused);
    cluster.moving("b", "n2", "n3");
    assert_eq!(text(&cluster), refused);
    cluster.land();
    assert_eq!(moves(&cluster, "c", "n2").unwrap(), ["a", "c"]);
}

#[test]
fn a_move_needs_a_node_that_takes_it_and_a_rule_that_allows_it() {
    let mut cluster = Cluster::new(3, &[("a", "n1"), ("b", "-")]).with(&[("r", only_on(&["a"], &["n1", "n2"]))]);
    assert!(matches!(moves(&cluster, "a", "n3"), Err(Refusal::NotAllowed { .. })));
    assert!(matches!(moves(&cluster, "a", "n1"), Err(Refusal::AlreadyThere { .. })));
    assert!(matches!(moves(&cluster, "a", "n9"), Err(Refusal::NoNode { .. })));
    assert!(matches!(moves(&cluster, "x", "n2"), Err(Refusal::NoResource { .. })));
    assert!(matches!(moves(&cluster, "b", "n2"), Err(Refusal::Nowhere { .. })));
    assert_eq!(moves(&cluster, "a", "n2").unwrap(), ["a"]);
    cluster.takes("n2", false);
    assert!(matches!(moves(&cluster, "a", "n2"), Err(Refusal::TakesNothing { .. })));
}

#[test]
fn a_move_needs_memory_for_everything_that_moves() {
    let mut cluster = Cluster::new(2, &[]).with(&[("t", together(&["a", "b"]))]);
    cluster.size("n2", 24, 3 * GIB);
    cluster.add("a", "n1", 0, 2 * GIB);
    cluster.add("b", "n1", 0, 2 * GIB);
    assert_eq!(
        moves(&cluster, "a", "n2").unwrap_err().to_string(),
        "n2 is too small for a, b: 4096 MiB of memory are needed and 3072 MiB are free"
    );
    cluster.size("n2", 24, 4 * GIB);
    assert_eq!(moves(&cluster, "a", "n2").unwrap(), ["a", "b"]);
}

#[test]
fn what_moves_along_isnt_brought_to_what_it_is_kept_apart_from_either() {
    // Only b1 and y1 are named, y2 is drawn to y1, and a1 would bring b1 to it.
    let rules = [("t", together(&["a1", "b1"])), ("u", together(&["y1", "y2"])), ("x", apart(&["b1", "y1"]))];
    let mut cluster = Cluster::new(3, &[("a1", "n1"), ("b1", "n1"), ("y1", "n3"), ("y2", "n2")]).with(&rules);
    assert!(matches!(moves(&cluster, "a1", "n2"), Err(Refusal::Apart { resource, .. }) if resource == res("b1")));
    cluster.seat("y2", Seat::On(node("n3")));
    assert_eq!(moves(&cluster, "a1", "n2").unwrap(), ["a1", "b1"]);
}
