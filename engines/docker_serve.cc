#include "engines/docker_serve.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <microhttpd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <string_view>
#include <utility>

#include "engines/docker_plugin.h"
#include "engines/files.h"
#include "engines/limits.h"
#include "engines/program.h"
#include "engines/unix_socket.h"

namespace meshd::engines {
namespace {

constexpr int kFirstHandedOver = 3;  // SD_LISTEN_FDS_START
// Of one that says nothing: dockerd says all at once.
constexpr unsigned kSilenceSeconds = 10;
constexpr const char* kType = "application/vnd.docker.plugins.v1.2+json";

// One call's body as it comes.
struct Call {
  std::string body;
  bool too_long = false;
};

UniqueFd handed_over() {
  const char* const pid = std::getenv("LISTEN_PID");
  const char* const count = std::getenv("LISTEN_FDS");
  if (pid == nullptr || count == nullptr || pid != fmt::format("{}", getpid())) return UniqueFd();
  return UniqueFd(std::string_view(count) == "1" ? kFirstHandedOver : -1);
}

// What an earlier process has left; not what somebody answers at.
Status remove_stale(const std::string& path) {
  struct stat info{};
  if (lstat(path.c_str(), &info) != 0) return {};
  if (!S_ISSOCK(info.st_mode)) return fail(ErrorCode::kConflict, path + ": is no socket");
  auto listener = connect_unix(path, "whoever made it");
  if (listener || listener.error().sys_errno == EAGAIN) {
    return fail(ErrorCode::kConflict, path + ": another driver listens there");
  }
  if (listener.error().sys_errno != ECONNREFUSED) return std::unexpected(listener.error());
  if (unlink(path.c_str()) != 0) return fail_errno("remove " + path, errno);
  return {};
}

Result<UniqueFd> listen_at(const std::string& path) {
  const auto address = TRY(unix_address(path));
  std::error_code error;
  std::filesystem::create_directories(std::filesystem::path(path).parent_path(), error);
  if (error) return fail_errno("make the folder of " + path, error.value());
  CHECK_OK(remove_stale(path));
  UniqueFd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  // For dockerd alone: it is root.
  const auto mask = umask(0077);
  const bool bound =
      fd && bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;
  const int why = errno;
  umask(mask);
  if (!bound) return fail_errno("listen at " + path, why);
  if (listen(fd.get(), SOMAXCONN) != 0) return fail_errno("listen at " + path, errno);
  return fd;
}

// Of a socket that somebody made for us, too.
std::string path_of(int fd) {
  sockaddr_un address{};
  socklen_t size = sizeof address;
  if (getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size) != 0) return {};
  return {address.sun_path, strnlen(address.sun_path, sizeof address.sun_path)};
}

MHD_Result respond(MHD_Connection* connection, const PluginAnswer& answer) {
  auto* const response = MHD_create_response_from_buffer(
      answer.body.size(), const_cast<char*>(answer.body.data()), MHD_RESPMEM_MUST_COPY);
  if (response == nullptr) return MHD_NO;
  MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, kType);
  MHD_add_response_header(response, MHD_HTTP_HEADER_CONNECTION, "close");
  const auto queued = MHD_queue_response(connection, answer.status, response);
  MHD_destroy_response(response);
  return queued;
}

}  // namespace

class DockerServer::Http {
 public:
  explicit Http(DriverOptions options) : options_(std::move(options)) {}
  Http(const Http&) = delete;
  Http& operator=(const Http&) = delete;
  ~Http() {
    if (http_ != nullptr) MHD_stop_daemon(http_);
    if (is_ours_) unlink(path_.c_str());
  }

  [[nodiscard]] Status start(const std::string& path);
  [[nodiscard]] bool answers(TimePoint by) const;
  [[nodiscard]] const std::string& path() const { return path_; }

 private:
  static MHD_Result on_request(void* self, MHD_Connection* connection, const char* url,
                               const char* method, const char* version, const char* upload,
                               std::size_t* upload_size, void** state);
  static void on_completed(void* self, MHD_Connection* connection, void** state,
                           MHD_RequestTerminationCode why);
  [[nodiscard]] PluginAnswer answer(std::string_view url, std::string_view method,
                                    const Call& call) const;

  const DriverOptions options_;
  MHD_Daemon* http_ = nullptr;
  std::string path_;
  bool is_ours_ = false;  // or the service manager's
  std::atomic<std::uint64_t> answered_ = 0;
};

Status DockerServer::Http::start(const std::string& path) {
  auto fd = handed_over();
  if (!fd) {
    fd = TRY(listen_at(path));
    is_ours_ = true;
  }
  path_ = path_of(fd.get());
  http_ = MHD_start_daemon(MHD_USE_THREAD_PER_CONNECTION | MHD_USE_INTERNAL_POLLING_THREAD, 0,
                           nullptr, nullptr, &on_request, this, MHD_OPTION_LISTEN_SOCKET, fd.get(),
                           MHD_OPTION_CONNECTION_LIMIT, kMaxCalls, MHD_OPTION_CONNECTION_TIMEOUT,
                           kSilenceSeconds, MHD_OPTION_NOTIFY_COMPLETED, &on_completed, this,
                           MHD_OPTION_END);
  if (http_ == nullptr) return fail(ErrorCode::kSystem, "the HTTP library does not start");
  [[maybe_unused]] const int its_own = fd.release();
  return {};
}

MHD_Result DockerServer::Http::on_request(void* self, MHD_Connection* connection, const char* url,
                                          const char* method, const char*, const char* upload,
                                          std::size_t* upload_size, void** state) {
  if (*state == nullptr) {
    *state = new Call;
    return MHD_YES;
  }
  auto& call = *static_cast<Call*>(*state);
  if (*upload_size > 0) {
    call.too_long = call.too_long || call.body.size() + *upload_size > kMaxInputBytes;
    if (!call.too_long) call.body.append(upload, *upload_size);
    *upload_size = 0;
    return MHD_YES;
  }
  return respond(connection, static_cast<const Http*>(self)->answer(url, method, call));
}

void DockerServer::Http::on_completed(void* self, MHD_Connection*, void** state,
                                      MHD_RequestTerminationCode) {
  const std::unique_ptr<Call> ended(static_cast<Call*>(*state));
  *state = nullptr;
  ++static_cast<Http*>(self)->answered_;
}

bool DockerServer::Http::answers(TimePoint by) const {
  constexpr std::string_view kCall = "GET / HTTP/1.0\r\n\r\n";
  const auto before = answered_.load();
  if (const auto fd = connect_unix(path_, "itself");
      fd && send(fd->get(), kCall.data(), kCall.size(), MSG_NOSIGNAL) > 0) {
    const auto answer = read_input(fd->get(), kMaxFileBytes, by);
    if (answer && answer->starts_with("HTTP/1.")) return true;
  }
  return answered_ != before;
}

PluginAnswer DockerServer::Http::answer(std::string_view url, std::string_view method,
                                        const Call& call) const {
  if (method != MHD_HTTP_METHOD_POST) return {405, render_plugin_error("dockerd says POST"), {}};
  if (call.too_long) return {413, render_plugin_error("mesh: the call is longer than is read"), {}};
  auto answer = answer_plugin(url, call.body, options_, BootClock::now() + kDeadline);
  if (!answer.refusal.empty()) {
    [[maybe_unused]] const auto written =
        write_all(2, fmt::format("{}: {}\n", printable(url), printable(answer.refusal)));
  }
  return answer;
}

DockerServer::DockerServer(std::unique_ptr<Http> http) : http_(std::move(http)) {}
DockerServer::~DockerServer() = default;

bool DockerServer::answers(TimePoint by) const { return http_->answers(by); }
const std::string& DockerServer::path() const { return http_->path(); }

Result<std::unique_ptr<DockerServer>> DockerServer::start(const std::string& path,
                                                          DriverOptions options) {
  auto http = std::make_unique<Http>(std::move(options));
  CHECK_OK(http->start(path));
  return std::unique_ptr<DockerServer>(new DockerServer(std::move(http)));
}

}  // namespace meshd::engines
