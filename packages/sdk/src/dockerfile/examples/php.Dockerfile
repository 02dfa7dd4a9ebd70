FROM composer:2 as vendor
COPY composer.json composer.lock /app/
RUN composer install --no-dev --no-scripts

FROM php:8.3-apache
ARG APP_ENV=prod
ENV APACHE_DOCUMENT_ROOT /var/www/html/public
RUN docker-php-ext-install pdo_mysql \
 && a2enmod rewrite

COPY . /var/www/html
COPY --from=vendor /app/vendor/ /var/www/html/vendor/
RUN echo "env is $APP_ENV" && chown -R www-data:www-data /var/www/html
STOPSIGNAL SIGWINCH
VOLUME ["/var/www/html/storage"]
CMD apache2-foreground
