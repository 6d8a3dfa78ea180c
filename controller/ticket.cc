#include "controller/ticket.h"

#include "pki/join_ticket.h"
#include "pki/secret.h"

namespace meshd::controller {

Result<std::string> make_ticket(const Authority& authority,
                                const mesh::v1::StoredSettings& settings,
                                const std::string& token) {
  pki::JoinTicket ticket;
  ticket.addresses.assign(settings.addresses().begin(), settings.addresses().end());
  ticket.join_addresses.assign(settings.join_addresses().begin(), settings.join_addresses().end());
  ticket.authorities = {{authority.certificate}, authority.cluster};
  ticket.token = token;
  return pki::encode_ticket(ticket);
}

Result<MadeToken> draw_token(TokenTerms terms) {
  TokenRandomness randomness{};
  CHECK_OK(pki::fill_random(randomness));
  return make_token(std::move(terms), randomness);
}

}  // namespace meshd::controller
