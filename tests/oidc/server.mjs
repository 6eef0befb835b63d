// An OAuth2 server on loopback for tests/oidc/main.rs: npm's oidc-provider, as it comes, with
// clients of its own and two doors that the tests need. It says its URL on standard output and
// ends when its standard input does.

import http from 'node:http';

import { Provider } from 'oidc-provider';

const SCOPE = 'access-inbound';
// Seconds that a token lives, by client.
const LIFETIMES = { brief: 3 };

// What oidc-provider keeps, in memory. A client that is kept here, and not in its configuration,
// can be taken away while it runs.
const kept = new Map();

class Memory {
  constructor(model) {
    this.model = model;
  }

  key(id) {
    return `${this.model}:${id}`;
  }

  async upsert(id, payload) {
    kept.set(this.key(id), payload);
  }

  async find(id) {
    return kept.get(this.key(id));
  }

  async destroy(id) {
    kept.delete(this.key(id));
  }
}

const client = (id, secret, method) => ({
  client_id: id,
  client_secret: secret,
  token_endpoint_auth_method: method,
  grant_types: ['client_credentials'],
  redirect_uris: [],
  response_types: [],
  scope: SCOPE,
});

const signs = 'marked-secret+with%25signs/and=more';
for (const one of [
  client('basic', 'marked-secret-of-basic', 'client_secret_basic'),
  client('form', 'marked-secret-of-form', 'client_secret_post'),
  client('brief', 'marked-secret-of-brief', 'client_secret_post'),
  client('leaver', 'marked-secret-of-leaver', 'client_secret_post'),
  client('signs-basic', signs, 'client_secret_basic'),
  client('signs-form', signs, 'client_secret_post'),
]) {
  kept.set(`Client:${one.client_id}`, one);
}

const server = http.createServer();
server.listen(0, '127.0.0.1', () => {
  const url = `http://127.0.0.1:${server.address().port}`;
  const provider = new Provider(url, {
    adapter: Memory,
    scopes: [SCOPE, 'another-scope'],
    features: {
      clientCredentials: { enabled: true },
      revocation: { enabled: true },
      devInteractions: { enabled: false },
    },
    ttl: { ClientCredentials: (ctx, token, { clientId }) => LIFETIMES[clientId] ?? 600 },
  });
  provider.use(async (ctx, next) => {
    if (ctx.path === '/inbound') {
      // The API behind the tokens: oidc-provider itself says whether one is good.
      const [, value] = (ctx.get('authorization') ?? '').split(' ');
      const token = value && (await provider.ClientCredentials.find(value));
      const isGood = token?.isValid && token.scope === SCOPE;
      ctx.status = isGood ? 201 : 401;
      ctx.body = isGood ? { accepted: true } : { error: 'invalid_token' };
    } else if (ctx.path.startsWith('/dismiss/')) {
      kept.delete(`Client:${ctx.path.slice('/dismiss/'.length)}`);
      ctx.status = 204;
    } else {
      await next();
    }
  });
  server.on('request', provider.callback());
  console.log(url);
});

// Whoever started it holds the other end of the pipe.
process.stdin.resume();
process.stdin.on('end', () => process.exit(0));
