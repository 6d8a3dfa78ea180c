#include "dns/server.h"

#include "dns/worker.h"

namespace meshd::dns {

Server::Server() : refusals_(kMaxRefusals) {}
Server::~Server() = default;

Result<std::unique_ptr<Server>> Server::start(const std::vector<Listener>& listeners,
                                              const Published<Snapshot>& snapshots,
                                              ServerOptions options) {
  std::unique_ptr<Server> server(new Server());
  std::vector<UpstreamAddress> own;
  for (const auto& listener : listeners) {
    own.push_back({listener.address, TRY(local_port(listener.fd.get()))});
  }
  for (int i = 0; i < options.workers; ++i) {
    auto worker = std::make_unique<Worker>(snapshots, server->refusals_, server->stats_,
                                           server->loops_, options);
    for (const auto& listener : listeners) {
      // Sockets of workers that this run has not go to the first, not to nobody.
      const int owner = listener.worker < options.workers ? listener.worker : 0;
      if (owner == i) CHECK_OK(worker->add(listener));
    }
    server->workers_.push_back(std::move(worker));
  }
  for (auto& worker : server->workers_) worker->start(options.upstreams, own);
  return server;
}

void Server::set_upstreams(std::vector<UpstreamAddress> upstreams) {
  for (auto& worker : workers_) worker->set_upstreams(upstreams);
}

std::vector<UpstreamState> Server::upstream_states() const {
  // Each worker measures for itself; the first speaks for all.
  return workers_.empty() ? std::vector<UpstreamState>() : workers_.front()->states();
}

}  // namespace meshd::dns
