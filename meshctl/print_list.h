// `list` for people: one table for each kind of thing, rows in a stable order.
//
// Invariant: sort() decides the order for tables and JSON alike; it does not depend on the
//            order in which the daemon answered.
#pragma once

#include <string>

#include "meshctl/text.h"
#include "proto/node.pb.h"

namespace meshd::ctl {

void sort(mesh::v1::WorkloadList& list);   // by id
void sort(mesh::v1::ServiceList& list);    // by scope, workflow, name, owner
void sort(mesh::v1::FlowList& list);       // by source, destination, protocol, port
void sort(mesh::v1::PublishedList& list);  // by id, protocol, port
void sort(mesh::v1::NodeList& list);       // by name
void sort(mesh::v1::RefusedList& list);    // by consumer, provider, protocol, port

[[nodiscard]] std::string render_table(const mesh::v1::WorkloadList& list, const Style& style);
[[nodiscard]] std::string render_table(const mesh::v1::ServiceList& list, const Style& style);
[[nodiscard]] std::string render_table(const mesh::v1::FlowList& list, const Style& style);
[[nodiscard]] std::string render_table(const mesh::v1::PublishedList& list, const Style& style);
[[nodiscard]] std::string render_table(const mesh::v1::NodeList& list, const Style& style);
[[nodiscard]] std::string render_table(const mesh::v1::RefusedList& list, const Style& style);

}  // namespace meshd::ctl
