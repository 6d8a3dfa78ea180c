// An administrator's commands about what is opened from outside: web tokens, and the text for
// nginx. They read and write this machine's files, whether a controller runs or not.
//
// Invariant: a token's text is in what add_person() returns, and nowhere else.
// Errors:    one line.
#pragma once

#include "controller/admin_client.h"

namespace meshd::controller {

[[nodiscard]] Result<AdminOutput> add_person(const Where& where, const AddPerson& add,
                                             pki::UtcTime now);
[[nodiscard]] Result<AdminOutput> list_people(const Where& where, pki::UtcTime now);
[[nodiscard]] Result<AdminOutput> remove_person(const Where& where, const RemovePerson& remove);
[[nodiscard]] Result<AdminOutput> print_proxy_config(const Where& where,
                                                     const PrintProxyConfig& print);

}  // namespace meshd::controller
