// What may come in place of the API's answer: any bytes, with any status. What is taken for a
// request then goes the whole way to a declaration; a request that is wrong is closed, and what
// is declared has passed policy's reader.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>

#include "arvados/access.h"
#include "arvados/answers.h"
#include "arvados/requests.h"
#include "arvados/sweep.h"
#include "policy/from_proto.h"

namespace meshd::arvados {
namespace {

void expect(bool condition) {
  if (!condition) std::abort();
}

void read_as_everything(const Reply& reply) {
  static_cast<void>(read_user(reply));
  static_cast<void>(read_token_scope(reply));
  static_cast<void>(read_is_frozen(reply, "zzzzz-j7d0g-000000000000001"));
  static_cast<void>(read_may_manage(reply));
  static_cast<void>(read_owners(reply));
  static_cast<void>(read_permissions(reply));
  static_cast<void>(read_live_containers(reply));
  expect(reply.status == 200 || !read_record(reply, "zzzzz-xvhdp-000000000000001"));
}

void declare_all(const Reply& reply) {
  Listing listing;
  if (auto requests = read_requests(reply, false)) {
    for (auto& request : *requests) listing.requests.add(std::move(request));
  }
  if (auto links = read_links(reply)) listing.links = *std::move(links);
  const auto site = site_of(listing);
  for (const auto& [container, by_owner] : site.workloads) {
    for (const auto& [owner, listed] : by_owner) {
      const auto& declaration = listed.declaration;
      expect(declaration.id == container && declaration.owner == owner);
      expect(listed.problem.empty() || declaration == closed(declaration));
      const auto again = policy::from_proto(policy::to_proto(declaration));
      expect(again && *again == declaration);
    }
  }
  const auto steps = difference({}, site, {});
  expect(steps.declare.size() == site.workloads.size() && steps.forget.empty());
}

// With the same answer to every step, no question goes on for ever or ends in a level by itself.
template <class Question>
void ask_until_it_ends(Question question, const Reply& reply) {
  for (int step = 0; question.next(); ++step) {
    expect(step < 10);
    question.take(reply);
  }
  static_cast<void>(question.answer());
}

void read_one(const Reply& reply) {
  read_as_everything(reply);
  if (reply.status == 200) declare_all(reply);
  ask_until_it_ends(IdentityQuestion(), reply);
  ask_until_it_ends(LevelQuestion({"zzzzz-tpzed-000000000000001", "", false},
                                  {"zzzzz-dz642-000000000000001", "zzzzz-xvhdp-000000000000001"},
                                  policy::Access::kCanWrite),
                    reply);
  Sweep sweep({"zzzzz-dz642-000000000000001"});
  for (int step = 0; step < 20 && sweep.next(); ++step) {
    if (!sweep.take(reply)) break;
  }
}

}  // namespace
}  // namespace meshd::arvados

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  constexpr int kStatus[] = {200, 200, 401, 403, 404, 422, 500, 302};
  meshd::arvados::Reply reply;
  reply.status = kStatus[data[0] % 8];
  reply.is_json = true;
  reply.body.assign(reinterpret_cast<const char*>(data + 1), size - 1);
  meshd::arvados::read_one(reply);
  return 0;
}
