from alpine:3.20
maintainer somebody
run apk add --no-cache nginx \

 && adduser -D -g 'www' www
copy nginx.conf /etc/nginx/nginx.conf
add html/ /www/
expose 80 443/tcp
cmd ["nginx", "-g", "daemon off;"]
