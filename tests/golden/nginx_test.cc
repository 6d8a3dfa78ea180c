// The configuration that is shipped for an example site is what would be printed for it.
#include <gtest/gtest.h>

#include "proxy/nginx_config.h"
#include "tests/support/golden.h"

namespace meshd::proxy {
namespace {

TEST(GoldenNginxTest, TheExampleThatIsShippedIsWhatIsPrinted) {
  NginxSite site;
  site.names.zone = "mesh.example.org";
  site.certificate = "/etc/ssl/certs/mesh.example.org.pem";
  site.certificate_key = "/etc/ssl/private/mesh.example.org.key";
  const auto text = render_nginx_config(site);
  ASSERT_TRUE(text) << text.error().what;
  expect_golden("packaging/nginx/mesh.conf", *text);
}

}  // namespace
}  // namespace meshd::proxy
