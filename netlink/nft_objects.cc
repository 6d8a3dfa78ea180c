#include "netlink/nft_objects.h"

#include <netinet/in.h>

extern "C" {
#include <libnftnl/chain.h>
#include <libnftnl/expr.h>
#include <libnftnl/object.h>
#include <libnftnl/rule.h>
#include <libnftnl/set.h>
#include <libnftnl/table.h>
}

#include <cstdlib>

namespace meshd::netlink {
namespace {

template <class T>
Object<T> owned(T* object) {
  if (object == nullptr) std::abort();  // out of memory
  return Object<T>(object);
}

}  // namespace

void FreeObject::operator()(nftnl_chain* chain) const { nftnl_chain_free(chain); }
void FreeObject::operator()(nftnl_expr* expr) const { nftnl_expr_free(expr); }
void FreeObject::operator()(nftnl_obj* object) const { nftnl_obj_free(object); }
void FreeObject::operator()(nftnl_rule* rule) const { nftnl_rule_free(rule); }
void FreeObject::operator()(nftnl_set* set) const { nftnl_set_free(set); }
void FreeObject::operator()(nftnl_table* table) const { nftnl_table_free(table); }

Object<nftnl_chain> new_chain() { return owned(nftnl_chain_alloc()); }
Object<nftnl_expr> new_expr(const char* name) { return owned(nftnl_expr_alloc(name)); }
Object<nftnl_obj> new_obj() { return owned(nftnl_obj_alloc()); }
Object<nftnl_rule> new_rule() { return owned(nftnl_rule_alloc()); }
Object<nftnl_set> new_set() { return owned(nftnl_set_alloc()); }
Object<nftnl_table> new_table() { return owned(nftnl_table_alloc()); }

}  // namespace meshd::netlink
