// The real Kernel: Topology for links and routes, Underlay for those to other nodes, one nftables
// table, conntrack.
//
// Threads:    the main loop only.
// Owns:       the netlink sockets.
// Invariants: the table is never owned by our socket (NFT_TABLE_F_OWNER): claiming it
//             again would be a write at every start, and an administrator could not look
//             for help with nft. Foreign changes are seen and repaired instead.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "meshd/kernel.h"
#include "meshd/table_seal.h"
#include "meshd/topology.h"
#include "meshd/underlay.h"
#include "netlink/conntrack.h"
#include "netlink/nft_dump.h"
#include "netlink/socket.h"
#include "policy/base_table.h"

namespace meshd {

class LinuxKernel final : public Kernel {
 public:
  // A dump and a batch that fit together, at most: then somebody writes all the time.
  static constexpr int kMaxConverge = 8;
  // Of a table that is made from nothing: while anybody on the machine listens to nftables,
  // the kernel keeps 4 KiB for each element of a transaction until its end.
  static constexpr std::size_t kFillAtOnce = 10'000;
  // Connections told of by connections(): a plan is for people, and these take 80 bytes each.
  static constexpr std::size_t kMaxConnections = 100'000;

  [[nodiscard]] static Result<std::unique_ptr<LinuxKernel>> make(const policy::Settings& settings);

  // After topology().set_memory().
  [[nodiscard]] Status prepare_node();
  // From here on what the table is made to be is kept in `dir`, for the next process; and the
  // first converge() believes what the last one left there.
  [[nodiscard]] Status keep_seal(const std::string& dir, std::string boot);
  // After prepare_node(): the constant part of the table.
  void set_table(const policy::Settings& settings, const policy::TableOptions& options);
  // Whether the kernel can do all that is asked of it, found out without a change to it.
  // kUnsupported names what is missing. After set_table().
  [[nodiscard]] Status check();
  [[nodiscard]] std::uint32_t nft_port() const { return nft_.port_id(); }
  [[nodiscard]] Topology& topology() { return topology_; }
  [[nodiscard]] Underlay& underlay() { return underlay_; }

  Status connect(const LinkPlan& plan, int netns_fd) override;
  Status disconnect(const std::string& host_ifname) override;
  Status clean_container(const policy::Attachment& attachment) override;
  Result<bool> name_taken(const std::string& host_ifname) override;
  Result<bool> link_exists(const std::string& host_ifname) override;
  Status commit(const policy::Delta& delta) override;
  Result<Repairs> converge(const std::vector<policy::Element>& wanted) override;
  // False: somebody else changed the node's ruleset since the last converge() or commit().
  [[nodiscard]] Result<bool> is_settled();
  // All that became of the ruleset up to this generation is known, and our table was changed by
  // nobody else; or it may have been, and is to be read back.
  void heard(std::uint32_t generation);
  void distrust() { content_.reset(); }
  Result<Repairs> audit(const std::vector<LinkPlan>& links) override;
  Status set_underlay(const UnderlayPlan& plan) override;
  Result<policy::ListeningPorts> listening() override;
  Result<Connections> connections() override;
  Status erase_conntrack(const EraseRequest& request) override;
  Result<std::vector<ElementCount>> counters(policy::SetId set) override;
  // Packets by the named counters of the table: what was dropped, by why.
  [[nodiscard]] Result<std::vector<std::pair<std::string, std::uint64_t>>> dropped();

  // Removes the table, if it is there.
  [[nodiscard]] static Status purge_table();

 private:
  [[nodiscard]] Result<Repairs> converge_table(const std::vector<policy::Element>& wanted);
  // Makes the table without its chains, which nothing passes by, and all its elements.
  // Returns what there is then, less the elements; counts `generation` on.
  [[nodiscard]] Result<netlink::NftDump> fill(std::span<const policy::Element> wanted,
                                              std::uint32_t& generation);
  [[nodiscard]] Result<Repairs> repair(std::optional<netlink::NftDump> dump,
                                       std::span<const policy::Element> wanted,
                                       std::uint64_t elements);
  LinuxKernel(Topology topology, Underlay underlay, netlink::Socket nft,
              netlink::Conntrack conntrack)
      : topology_(std::move(topology)),
        underlay_(std::move(underlay)),
        nft_(std::move(nft)),
        conntrack_(std::move(conntrack)) {}
  // One transaction.
  [[nodiscard]] Status send(const policy::Delta& delta);
  [[nodiscard]] Status send(const policy::Delta& delta, std::optional<std::uint32_t> generation);
  [[nodiscard]] Result<std::uint64_t> shape() const;
  [[nodiscard]] Result<bool> is_left_right(std::uint64_t elements, std::uint32_t generation);
  void settle(std::uint64_t elements, std::optional<std::uint32_t> generation);
  // Tables in which earlier versions tried the kernel, should one have died over it.
  [[nodiscard]] static Status sweep_probes(netlink::Socket& socket);

  Topology topology_;
  Underlay underlay_;
  netlink::Socket nft_;
  netlink::Conntrack conntrack_;
  policy::Table table_;
  // What the table is made to be, as TableSeal::elements; nothing: not known.
  std::optional<std::uint64_t> content_;
  // The ruleset's, of which content_ is known; nothing: others made some since.
  std::optional<std::uint32_t> generation_;
  std::optional<SealFile> seal_file_;
  std::optional<TableSeal> left_;  // by the process before, until the first converge()
  std::uint64_t netns_ = 0;        // its cookie
  std::uint64_t shape_ = 0;        // TableSeal::shape of table_, while content_ is known
  std::vector<Prefix> ranges_;     // of containers: their connections are looked at
};

}  // namespace meshd
