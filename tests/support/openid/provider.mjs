// A real OpenID provider on a free port of loopback: any name logs in, its groups are what follows the plus sign (ann+doctors).
// It prints its issuer, then takes the line `REDIRECT_URI LOGOUT_URI` of its one client. SIGUSR2 gives it new keys, as after a rotation.
import { once } from 'node:events';
import { createServer } from 'node:http';
import { createInterface } from 'node:readline';
import { generateKeyPairSync } from 'node:crypto';
import Provider from 'oidc-provider';

const key = () => ({ ...generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey.export({ format: 'jwk' }), use: 'sig', alg: 'RS256' });
const server = createServer();
server.listen(0, '127.0.0.1', async () => {
  const issuer = `http://127.0.0.1:${server.address().port}`;
  console.log(issuer);
  const [line] = await once(createInterface({ input: process.stdin }), 'line');
  const [redirect, out] = line.split(' ');
  const make = () => new Provider(issuer, {
    clients: [{
      client_id: 'pacslite', client_secret: 'secret-of-the-client', redirect_uris: [redirect], post_logout_redirect_uris: [out],
    }],
    jwks: { keys: [{ ...key(), kid: `key-${Date.now()}` }] },
    cookies: { keys: ['only for tests'] },
    claims: { openid: ['sub'], profile: ['preferred_username', 'groups', 'email'] },
    conformIdTokenClaims: false,
    pkce: { required: () => true },
    findAccount: (_, id) => ({
      accountId: id,
      claims: () => ({ sub: id, preferred_username: id.split('+')[0], groups: id.split('+').slice(1), email: 'ann@example.org' }),
    }),
  });
  let callback = make().callback();
  process.on('SIGUSR2', () => { callback = make().callback(); console.log('rotated'); });
  server.on('request', (request, answer) => callback(request, answer));
  console.log('ready');
});
