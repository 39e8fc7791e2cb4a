// A certified OpenID provider for the tests, on a free port of this machine: node provider.mjs REDIRECT_URI GROUPS_IN
// GROUPS_IN is id_token or userinfo: where the provider tells groups. Prints its issuer. PKCE and the client's secret are required.
import { createServer } from "node:http";
import Provider from "oidc-provider";

const [redirect, groupsIn] = process.argv.slice(2);
const GROUPS = { ann: ["everyone", "clinic-admins"], bob: ["everyone"], eve: ["kitchen"] };

const server = createServer();
server.listen(0, "127.0.0.1", () => {
  const issuer = `http://127.0.0.1:${server.address().port}`;
  const provider = new Provider(issuer, {
    clients: [{ client_id: "guardrail", client_secret: "s/e+c r%t", redirect_uris: [redirect] }],
    claims: { openid: ["sub"], email: ["email", "email_verified"], groups: ["groups"] },
    conformIdTokenClaims: groupsIn === "userinfo",
    cookies: { keys: ["for tests"] },
    findAccount: (_, id) => ({
      accountId: id,
      claims: () => ({ sub: id, email: `${id}@clinic.example`, email_verified: id !== "bob", groups: GROUPS[id] ?? [] }),
    }),
    pkce: { required: () => true },
  });
  server.on("request", provider.callback());
  console.log(`issuer ${issuer}`);
});
