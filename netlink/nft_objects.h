// Owners of libnftnl's objects, and the step from our values to them. For netlink/nft_*.cc.
//
// Owns:   each Object frees what it holds, with everything added to it.
// Errors: libnftnl fails to allocate only when memory is out: the process ends.
#pragma once

#include <cstdint>
#include <memory>

#include "netlink/nft_expr.h"

struct nftnl_chain;
struct nftnl_expr;
struct nftnl_obj;
struct nftnl_rule;
struct nftnl_set;
struct nftnl_table;

namespace meshd::netlink {

struct FreeObject {
  void operator()(nftnl_chain* chain) const;
  void operator()(nftnl_expr* expr) const;
  void operator()(nftnl_obj* object) const;
  void operator()(nftnl_rule* rule) const;
  void operator()(nftnl_set* set) const;
  void operator()(nftnl_table* table) const;
};
template <class T>
using Object = std::unique_ptr<T, FreeObject>;

[[nodiscard]] Object<nftnl_chain> new_chain();
[[nodiscard]] Object<nftnl_expr> new_expr(const char* name);
[[nodiscard]] Object<nftnl_obj> new_obj();
[[nodiscard]] Object<nftnl_rule> new_rule();
[[nodiscard]] Object<nftnl_set> new_set();
[[nodiscard]] Object<nftnl_table> new_table();

// Appends checked expressions (check_exprs) to a rule. InSet expressions refer to the
// anonymous sets first_set_id, first_set_id + 1, ... of the same batch.
void add_exprs(nftnl_rule* rule, const Exprs& exprs, std::uint32_t first_set_id);

}  // namespace meshd::netlink
