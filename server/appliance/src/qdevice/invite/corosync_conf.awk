# Reads a corosync.conf and writes it with a QDevice of the model "net" in it; everything else stays as it was.
# Given: cluster, host, algorithm (ffsplit or lms), bump (1: raise totem.config_version).
# Ends with 0 when it wrote a new file, 3 when the file has this very QDevice already, 1 when it refuses.
# What it doesn't understand it refuses: a wrong corosync.conf stops a cluster.

function refuse(why) {
  printf "%s: %s\n", FILENAME, why > "/dev/stderr"
  failed = 1
  exit 1
}

function inside() {
  return depth ? path[depth] : ""
}

{
  line[NR] = $0
  text = $0
  gsub(/^[ \t]+|[ \t]+$/, "", text)
  if (text == "" || text ~ /^#/) next
  if (text == "}") {
    if (!depth) refuse("line " NR " closes a section that was not opened")
    if (inside() == "quorum") quorum_end = NR
    depth--
    next
  }
  if (text ~ /^[A-Za-z0-9_.]+[ \t]*\{$/) {
    name = text
    sub(/[ \t]*\{$/, "", name)
    path[depth + 1] = depth ? inside() "." name : name
    depth++
    sections[inside()]++
    next
  }
  if (text ~ /^[A-Za-z0-9_.]+[ \t]*:/) {
    key = text
    sub(/[ \t]*:.*$/, "", key)
    value = text
    sub(/^[^:]*:[ \t]*/, "", value)
    full = depth ? inside() "." key : key
    given[full]++
    values[full] = value
    lines[full] = NR
    next
  }
  refuse("line " NR " is not understood: " text)
}

function once(key) {
  if (given[key] > 1) refuse(key " is given " given[key] " times")
  return values[key]
}

END {
  if (failed) exit 1
  if (depth) refuse("the section " inside() " is not closed")
  if (sections["totem"] != 1 || sections["quorum"] != 1 || sections["nodelist"] != 1)
    refuse("one section each of totem, quorum and nodelist is needed")
  if (once("totem.cluster_name") != cluster)
    refuse("this is a node of the cluster \"" values["totem.cluster_name"] "\", the invitation is for \"" cluster "\"")
  if (once("quorum.provider") != "corosync_votequorum")
    refuse("quorum.provider is \"" values["quorum.provider"] "\": a QDevice needs corosync_votequorum")
  nodes = sections["nodelist.node"]
  if (!nodes) refuse("there is no node in the nodelist")
  if (sections["quorum.device"]) {
    same = sections["quorum.device"] == 1 && once("quorum.device.model") == "net"
    same = same && once("quorum.device.net.host") == host && once("quorum.device.net.algorithm") == algorithm
    if (!same) {
      refuse("there is another QDevice already (model " values["quorum.device.model"] ", host " \
        values["quorum.device.net.host"] ", algorithm " values["quorum.device.net.algorithm"] \
        "): remove it first, with pvecm qdevice remove or pcs quorum device remove")
    }
    for (n = 1; n <= NR; n++) print line[n]
    exit 3
  }
  if (given["quorum.expected_votes"])
    refuse("quorum.expected_votes is set, and would hide the device's votes: remove the line, they are counted by themselves")
  if (algorithm == "ffsplit" && nodes % 2)
    refuse(nodes " nodes are no even number: ffsplit is for even ones; make the invitation with --algorithm lms")
  if (algorithm == "lms" && once("quorum.wait_for_all") == "1")
    refuse("quorum.wait_for_all is 1: with lms a node that has quorum and is cut off from the QDevice server then casts " \
      "its vote without end, while the server gives it to others. Set it to 0, or make the invitation with --algorithm ffsplit")
  votes = algorithm == "lms" ? nodes - 1 : 1
  if (!votes) refuse("a cluster of one node needs no QDevice")
  if (bump) {
    version = once("totem.config_version")
    if (version !~ /^[0-9]+$/) refuse("totem.config_version is \"" version "\", which is no number")
    sub(/[0-9]+[ \t]*$/, version + 1, line[lines["totem.config_version"]])
  }
  # Corosync doesn't start with both.
  if (once("quorum.two_node") == "1") sub(/1[ \t]*$/, "0", line[lines["quorum.two_node"]])
  for (n = 1; n <= NR; n++) {
    if (n == quorum_end) {
      print "  device {"
      print "    model: net"
      print "    votes: " votes
      print "    net {"
      print "      host: " host
      print "      algorithm: " algorithm
      print "      tls: required"
      print "    }"
      print "  }"
    }
    print line[n]
  }
}
