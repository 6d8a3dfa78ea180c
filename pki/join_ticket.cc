#include "pki/join_ticket.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <utility>

#include "base/ip.h"
#include "pki/secret.h"
#include "proto/controller.pb.h"

namespace meshd::pki {
namespace {

namespace pb = mesh::v1;

constexpr std::string_view kBlanks = " \t\r\n";
constexpr std::size_t kMaxEndpointBytes = 253 + 6;  // a DNS name and a port

std::unexpected<Error> refuse(std::string_view why) {
  return fail(ErrorCode::kInvalid, fmt::format("join ticket: {}", why));
}

bool is_port(std::string_view text) {
  std::uint16_t port = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), port);
  return error == std::errc{} && end == text.data() + text.size() && port != 0;
}

bool is_host(std::string_view host) {
  if (const auto address = IpAddress::parse(host)) return address->is_v4();
  for (std::size_t at = 0; at <= host.size();) {
    const auto end = std::min(host.find('.', at), host.size());
    if (!label_problem(host.substr(at, end - at)).empty()) return false;
    at = end + 1;
  }
  // "10.1.2" would be looked up, and is somebody's slip.
  return host.find_first_not_of("0123456789.") != std::string_view::npos;
}

bool is_token(std::string_view text) {
  const auto fits = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '.';
  };
  return !text.empty() && text.size() <= kMaxTokenBytes && std::ranges::all_of(text, fits);
}

Status check_endpoints(std::string_view what, const std::vector<std::string>& endpoints) {
  if (endpoints.empty()) return refuse(fmt::format("no {}", what));
  if (endpoints.size() > kMaxTicketAddresses) {
    return refuse(fmt::format("more than {} {}", kMaxTicketAddresses, what));
  }
  for (const auto& endpoint : endpoints) {
    if (const auto why = endpoint_problem(endpoint); !why.empty()) {
      return refuse(fmt::format("one of the {} {}", what, why));
    }
  }
  return {};
}

Status check_ticket(const JoinTicket& ticket) {
  CHECK_OK(check_endpoints("join addresses", ticket.join_addresses));
  CHECK_OK(check_endpoints("addresses", ticket.addresses));
  if (!is_token(ticket.token)) return refuse("no token");
  return {};
}

}  // namespace

std::string endpoint_problem(std::string_view text) {
  if (text.size() > kMaxEndpointBytes) return "is too long";
  const auto colon = text.rfind(':');
  if (colon == std::string_view::npos || !is_port(text.substr(colon + 1))) {
    return "does not end in a port, as host:port or [v6]:port do";
  }
  const auto host = text.substr(0, colon);
  if (host.starts_with('[') && host.ends_with(']')) {
    const auto address = IpAddress::parse(host.substr(1, host.size() - 2));
    return address && address->is_v6() ? "" : "holds no IPv6 address in its brackets";
  }
  return is_host(host) ? "" : "has neither a host's name nor its address before the port";
}

Result<std::string> encode_ticket(const JoinTicket& ticket) {
  CHECK_OK(check_ticket(ticket));
  if (ticket.authorities.certificates.empty()) return refuse("no authority");
  pb::JoinTicket message;
  message.mutable_join_addresses()->Assign(ticket.join_addresses.begin(),
                                           ticket.join_addresses.end());
  message.mutable_addresses()->Assign(ticket.addresses.begin(), ticket.addresses.end());
  for (const auto& authority : ticket.authorities.certificates) {
    message.mutable_ca()->append(authority.to_pem());
  }
  message.set_token(ticket.token);
  auto text = to_base64(message.SerializeAsString());
  if (text.size() > kMaxTicketBytes) return refuse("too long");
  return text;
}

Result<JoinTicket> decode_ticket(std::string_view text) {
  // Before anything else: what a file that is no ticket is like.
  if (text.size() > kMaxTicketBytes) return refuse("too long");
  const auto first = text.find_first_not_of(kBlanks);
  if (first == std::string_view::npos) return refuse("empty");
  text = text.substr(first, text.find_last_not_of(kBlanks) - first + 1);
  if (text.find_first_of(kBlanks) != std::string_view::npos) {
    return refuse("not one line without blanks");
  }
  const auto bytes = parse_base64(text);
  if (!bytes) return refuse("not base64");
  pb::JoinTicket message;
  if (!message.ParseFromString(*bytes)) return refuse("not what mesh-controller wrote");
  JoinTicket ticket{
      .join_addresses = {message.join_addresses().begin(), message.join_addresses().end()},
      .addresses = {message.addresses().begin(), message.addresses().end()},
      .authorities = {},
      .token = message.token()};
  CHECK_OK(check_ticket(ticket));
  auto authorities = parse_authorities(message.ca());
  if (!authorities) return std::unexpected(std::move(authorities).error().in("join ticket"));
  ticket.authorities = *std::move(authorities);
  return ticket;
}

}  // namespace meshd::pki
