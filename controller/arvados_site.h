// An Arvados site: asks its API what there is, has it declared, and answers the proxy's questions.
//
// Threads:   the controller's loop; the clients have threads of their own, which post.
// Owns:      two clients, so that pages full of files hold up no container that waits, and the
//            other way round. Borrows the controller.
// Invariant: the tokens stay in this process: nothing of them goes to nodes, logs or people.
// Errors:    of make(): "arvados.FIELD: WHY".
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "arvados/client.h"
#include "arvados/poller.h"
#include "base/mailbox.h"
#include "controller/arvados_asker.h"
#include "controller/arvados_declarer.h"
#include "controller/arvados_token.h"
#include "controller/config.h"
#include "proxy/target.h"

namespace meshd::controller {

// A name goes with its link's request. Whoever has it in bookmarks is told for so long that what
// it named has ended; without its link it is nobody's at once.
inline constexpr auto kNameRemembered = std::chrono::hours(1);

// Names of links, as they come and go. Pure.
class ArvadosNames {
 public:
  using Sink = std::function<void(const std::string& name, std::optional<proxy::Target>)>;
  void take(const arvados::Site& site, TimePoint now, const Sink& sink);

 private:
  struct Name {
    proxy::Target target;
    std::optional<TimePoint> gone_at;
  };
  std::map<std::string, Name> names_;
};

class ArvadosSite {
 public:
  [[nodiscard]] static Result<std::unique_ptr<ArvadosSite>> make(const ArvadosConfig& config,
                                                                 Controller& controller,
                                                                 ArvadosNames::Sink names);
  ~ArvadosSite();
  ArvadosSite(const ArvadosSite&) = delete;
  ArvadosSite& operator=(const ArvadosSite&) = delete;

  // Readable when the API has said something.
  [[nodiscard]] int fd() const { return replies_.fd(); }
  // What has come, and what is to be asked: when readable, or due.
  void serve(const Moment& now);
  [[nodiscard]] std::optional<TimePoint> next() const { return poller_.next_timer(); }
  [[nodiscard]] proxy::Asker& asker() { return asker_; }

 private:
  using ClientPtr = std::unique_ptr<arvados::Client>;
  struct Parts {
    std::unique_ptr<TokenFile> token;
    ClientPtr reading, asking;
  };
  ArvadosSite(const ArvadosConfig& config, Controller& controller, ArvadosNames::Sink names,
              Parts parts);
  void want(const std::string& id);
  void ask(TimePoint now);
  void take(const arvados::News& news, const Moment& now);

  Controller& controller_;
  const ArvadosNames::Sink sink_;
  ArvadosDeclarer declarer_;
  ArvadosNames names_;
  arvados::Poller poller_;
  // One of everything and one for those who wait, and the last ones' answers.
  Mailbox<arvados::Replied> replies_{8};
  std::unique_ptr<TokenFile> token_;
  ArvadosAsker asker_;
  ClientPtr asking_, reading_;  // they end first: until then they use what stands above
};

}  // namespace meshd::controller
